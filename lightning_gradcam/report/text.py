"""Reports as words: for a terminal, for a pull request, for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from lightning_gradcam.escapes import in_markdown, plain
from lightning_gradcam.report.findings import Finding, Report, Worst

MARKS = {
    "pass": "✓ pass",
    "regressed": "✗ regressed",
    "inconclusive": "? inconclusive",
    "incompatible": "! incompatible",
}


def as_text(report: Report) -> str:
    """For a terminal; control characters in names are taken out."""
    lines = [f"{MARKS[report.status]} ({plain(report.profile)}): {plain(report.reason)}"]
    for finding in report.findings:
        lines += ["", plain(finding.key), *columns(facts_of(finding, report), 26)]
        lines += ["  worst images"]
        lines += [f"    {plain(words)}" for words in map(worst_line, finding.worst)]
    if report.differences:
        lines += ["", "what differs"]
        lines += columns([(name, f"{a} -> {b}") for name, (a, b) in report.differences.items()], 18)
    lines += [f"warning: {plain(warning)}" for warning in report.warnings]
    return "\n".join(lines)


def as_markdown(report: Report) -> str:
    """For a comment on a pull request; names cannot break out of their cells."""
    lines = [f"### {MARKS[report.status]}: explanations, {in_markdown(report.profile)}", "", in_markdown(report.reason)]
    for finding in report.findings:
        lines += ["", f"**{in_markdown(finding.key)}**", "", *table(("", ""), facts_of(finding, report))]
        worst = ((str(w.index), *worst_cells(w)) for w in finding.worst)
        lines += ["", *table(("worst image", report.metric, "label", "baseline", "candidate"), worst)]
    if report.differences:
        differing = ((name, *pair) for name, pair in report.differences.items())
        lines += ["", *table(("what differs", "baseline", "candidate"), differing)]
    lines += ["", *(f"> {in_markdown(warning)}" for warning in report.warnings)] if report.warnings else []
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> str:
    """For machines; numbers that are not there are null."""
    return json.dumps(_finite(report.facts()), indent=1, allow_nan=False) + "\n"


def columns(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Names and what they are, in lines for a terminal, the names in a column of at least so many characters.

    >>> columns([("images", "128"), ("layer a.b", "maps")], 8)
    ['  images     128', '  layer a.b  maps']
    """
    width = max([width, *(len(name) for name, _ in rows)])
    return [f"  {plain(name):<{width}}  {plain(words)}" for name, words in rows]


def facts_of(finding: Finding, report: Report) -> list[tuple[str, str]]:
    """The numbers of a finding, in words."""
    held = "at least" if report.profile != "retrain" else "not behind the other trainings by more than"
    wanted = abs(finding.threshold) if report.profile == "retrain" else finding.threshold
    return [
        (f"mean {report.metric}", f"{number(finding.mean)} (95 %: {number(finding.low)} to {number(finding.high)})"),
        ("wanted", f"{held} {number(wanted)}"),
        ("images", f"{finding.count} of {report.images} have an answer"),
        ("quantiles", ", ".join(f"{name} {number(value)}" for name, value in finding.quantiles.items())),
        ("other similarities", ", ".join(f"{name} {number(value)}" for name, value in finding.others.items())),
        ("chance (another image)", number(finding.chance)),
        ("noise of the baseline", number(report.noise)),
        ("changed predictions", share(report.changed_predictions)),
        ("degenerate maps", f"{share(finding.degenerate[0])} before, {share(finding.degenerate[1])} now"),
    ]


def worst_line(worst: Worst) -> str:
    """One image in a line."""
    similarity, label, before, after = worst_cells(worst)
    return (
        f"image {worst.index}: {similarity}"
        + (f", label {label}" if label else "")
        + (f", predicted {before}, now {after}" if before else "")
    )


def worst_cells(worst: Worst) -> tuple[str, str, str, str]:
    """Similarity, label, and both predictions."""
    before, after = ("" if p is None else f"{p[0]} ({p[1]:.0%})" for p in (worst.before, worst.after))
    return number(worst.similarity), "" if worst.label is None else str(worst.label), before, after


def number(value: float) -> str:
    """With three decimals, or more where it is nearly one."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 0.9995 or abs(value) == 1 else f"{value:.6f}"


def share(value: float) -> str:
    """In percent."""
    return f"{value:.1%}" if math.isfinite(value) else "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """In Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    return [
        "| " + " | ".join(line if set(line) == {"-"} else in_markdown(line) for line in cells) + " |" for cells in lines
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
