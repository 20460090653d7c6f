"""What a comparison found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from torch import Tensor

from lightning_gradcam.baseline.html import render_page, render_table
from lightning_gradcam.baseline.text import align_columns, format_markdown_table, format_number, format_percent
from lightning_gradcam.utils.sanitize import escape_html, escape_markdown, escape_terminal

Status: TypeAlias = Literal["pass", "regressed", "inconclusive", "incompatible"]

EXIT_CODES: Mapping[Status, int] = {"pass": 0, "regressed": 1, "inconclusive": 3, "incompatible": 4}
"""Of the command line; 2 is a wrong call."""

MARKS: Mapping[Status, str] = {
    "pass": "✓ pass",
    "regressed": "✗ regressed",
    "inconclusive": "? inconclusive",
    "incompatible": "! incompatible",
}
_COLORS: Mapping[Status, str] = {
    "pass": "#1a7f37",
    "regressed": "#b3261e",
    "inconclusive": "#8a6100",
    "incompatible": "#5b5f66",
}


@dataclass(frozen=True)
class WorstImage:
    """One of the images whose explanation moved most.

    Args:
        index: Its row in the probe.
        similarity: Of its maps.
        label: Its label, where there is one.
        before: The class that the baseline's model predicted, and its probability.
        after: The same for the candidate.
    """

    index: int
    similarity: float
    label: int | None
    before: tuple[int, float] | None
    after: tuple[int, float] | None


@dataclass(frozen=True)
class Finding:
    """What was found at one layer, by one method.

    Args:
        key: The layer, or ``"layer/method"``.
        status: Pass, regressed or inconclusive.
        reason: Why, in words.
        mean: Of the metric over the images that have an answer; with several baselines, how far behind them.
        low: One-sided 95 % lower bound of the mean.
        high: One-sided 95 % upper bound.
        threshold: What the mean has to reach.
        count: How many images the mean rests on.
        quantiles: Of the metric, by name.
        others: Means of the other similarities.
        chance: The mean similarity to another image's map.
        degenerate: Share of maps that cannot be read, of the baseline and of the candidate.
        worst: Images whose explanation moved most, the worst first.
    """

    key: str
    status: Status
    reason: str
    mean: float
    low: float
    high: float
    threshold: float
    count: int
    quantiles: Mapping[str, float]
    others: Mapping[str, float]
    chance: float
    degenerate: tuple[float, float]
    worst: Sequence[WorstImage]


@dataclass(frozen=True)
class Report:
    """Whether explanations are still what they were, with the evidence.

    Args:
        status: The worst of the findings': ``"pass"``, ``"regressed"``, ``"inconclusive"`` or ``"incompatible"``.
        reason: Why, in a sentence.
        profile: What the comparison was for.
        metric: Whose mean decided.
        images: How many were compared.
        findings: One per layer and method; none where baseline and candidate are incompatible.
        noise: How far the baseline's own maps move with the batch size, 1 - the mean rank correlation.
        changed_predictions: Share of images that the candidate gives another class.
        differences: What differs between the two, by name: the baseline's and the candidate's.
        warnings: What makes the result less sure.
        pictures: For each of the worst images of the first finding, ``(3, h, w)`` uint8: the image, and the evidence of
            baseline and candidate, and their difference; none where the images were not kept.
    """

    status: Status
    reason: str
    profile: str
    metric: str
    images: int
    findings: Sequence[Finding] = ()
    noise: float = float("nan")
    changed_predictions: float = float("nan")
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    pictures: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the explanations are still what they were, as far as can be told."""
        return self.status == "pass"

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return EXIT_CODES[self.status]

    def facts(self) -> dict[str, Any]:
        """Everything but the pictures, in plain values."""
        return {name: value for name, value in asdict(replace(self, pictures={})).items() if name != "pictures"}

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{MARKS[self.status]} ({escape_terminal(self.profile)}): {escape_terminal(self.reason)}"]
        for finding in self.findings:
            lines += ["", escape_terminal(finding.key), *align_columns(list_facts(finding, self), 26)]
            lines += ["  worst images"]
            lines += [f"    {escape_terminal(words)}" for words in map(format_worst_image, finding.worst)]
        if self.differences:
            lines += ["", "what differs"]
            lines += align_columns([(name, f"{a} -> {b}") for name, (a, b) in self.differences.items()], 18)
        lines += [f"warning: {escape_terminal(warning)}" for warning in self.warnings]
        return "\n".join(lines)

    def markdown(self) -> str:
        """For a comment on a pull request."""
        lines = [
            f"### {MARKS[self.status]}: explanations, {escape_markdown(self.profile)}",
            "",
            escape_markdown(self.reason),
        ]
        for finding in self.findings:
            lines += [
                "",
                f"**{escape_markdown(finding.key)}**",
                "",
                *format_markdown_table(("", ""), list_facts(finding, self)),
            ]
            worst = ((str(w.index), *format_worst_cells(w)) for w in finding.worst)
            lines += ["", *format_markdown_table(("worst image", self.metric, "label", "baseline", "candidate"), worst)]
        if self.differences:
            differing = ((name, *pair) for name, pair in self.differences.items())
            lines += ["", *format_markdown_table(("what differs", "baseline", "candidate"), differing)]
        lines += ["", *(f"> {escape_markdown(warning)}" for warning in self.warnings)] if self.warnings else []
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """For machines."""
        return json.dumps(_finite(self.facts()), indent=1, allow_nan=False) + "\n"

    def html(self) -> str:
        """One page that holds its pictures, baseline, candidate and difference side by side."""
        parts = [f'<p class="note">Warning: {escape_html(warning)}</p>' for warning in self.warnings]
        for i, finding in enumerate(self.findings):
            parts += [f"<h2>{escape_html(finding.key)}</h2>", render_table((), list_facts(finding, self))]
            rows = [[str(w.index), *format_worst_cells(w)] for w in finding.worst]
            pictures = [self.pictures.get(w.index) if i == 0 else None for w in finding.worst]
            head = ("worst image", self.metric, "label", "baseline predicts", "candidate predicts")
            shown = "image | baseline | candidate | of photos, the change (red more, blue less)"
            parts.append(render_table((*head, shown), rows, pictures))
        if self.differences:
            rows = [[name, *pair] for name, pair in self.differences.items()]
            parts += ["<h2>What differs</h2>", render_table(("", "baseline", "candidate"), rows)]
        mark = MARKS[self.status]
        about = f"explanations, {self.profile}"
        return render_page(f"{mark}: explanations", mark, about, self.reason, parts, _COLORS[self.status])


def list_facts(finding: Finding, report: Report) -> list[tuple[str, str]]:
    """The numbers of a finding, in words."""
    held = "at least" if report.profile != "retrain" else "not behind the other trainings by more than"
    wanted = abs(finding.threshold) if report.profile == "retrain" else finding.threshold
    return [
        (
            f"mean {report.metric}",
            f"{format_number(finding.mean)} (95 %: {format_number(finding.low)} to {format_number(finding.high)})",
        ),
        ("wanted", f"{held} {format_number(wanted)}"),
        ("images", f"{finding.count} of {report.images} have an answer"),
        ("quantiles", ", ".join(f"{name} {format_number(value)}" for name, value in finding.quantiles.items())),
        ("other similarities", ", ".join(f"{name} {format_number(value)}" for name, value in finding.others.items())),
        ("chance (another image)", format_number(finding.chance)),
        ("noise of the baseline", format_number(report.noise)),
        ("changed predictions", format_percent(report.changed_predictions)),
        (
            "degenerate maps",
            f"{format_percent(finding.degenerate[0])} before, {format_percent(finding.degenerate[1])} now",
        ),
    ]


def format_worst_image(worst: WorstImage) -> str:
    """One image in a line."""
    similarity, label, before, after = format_worst_cells(worst)
    return (
        f"image {worst.index}: {similarity}"
        + (f", label {label}" if label else "")
        + (f", predicted {before}, now {after}" if before else "")
    )


def format_worst_cells(worst: WorstImage) -> tuple[str, str, str, str]:
    """Similarity, label, and both predictions."""
    before, after = ("" if p is None else f"{p[0]} ({p[1]:.0%})" for p in (worst.before, worst.after))
    return format_number(worst.similarity), "" if worst.label is None else str(worst.label), before, after


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
