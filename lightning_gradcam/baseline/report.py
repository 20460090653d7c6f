"""The result of a comparison, and its rendering as text, Markdown, JSON and HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from torch import Tensor

from lightning_gradcam.baseline.html import render_page, render_table
from lightning_gradcam.baseline.text import (
    align_columns,
    display_name,
    format_markdown_table,
    format_number,
    format_numbers,
    format_percent,
)
from lightning_gradcam.utils.sanitize import escape_html, escape_markdown, escape_terminal

Status: TypeAlias = Literal["pass", "regressed", "inconclusive", "incompatible"]

EXIT_CODES: Mapping[Status, int] = {"pass": 0, "regressed": 1, "inconclusive": 3, "incompatible": 4}
"""Exit codes of the command line; 2 is a usage error."""

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
    """One of the images whose explanation changed most.

    Args:
        index: Its index in the probe.
        similarity: Similarity of its maps.
        label: Its label; None if there are no labels.
        before: The class predicted by the baseline's model, and its probability; None without logits.
        after: The class predicted by the candidate, and its probability; None without logits.
    """

    index: int
    similarity: float
    label: int | None
    before: tuple[int, float] | None
    after: tuple[int, float] | None

    def format_cells(self) -> tuple[str, str, str, str]:
        """Return similarity, label, and both predictions as text."""
        before, after = ("" if p is None else f"{p[0]} ({p[1]:.0%})" for p in (self.before, self.after))
        return format_number(self.similarity), "" if self.label is None else str(self.label), before, after

    def format_line(self) -> str:
        """Return the image's facts as one line.

        >>> WorstImage(3, 0.25, 2, (2, 0.9), (0, 0.6)).format_line()
        'image 3: 0.250, label 2, baseline predicts 2 (90%), candidate predicts 0 (60%)'
        """
        similarity, label, before, after = self.format_cells()
        return (
            f"image {self.index}: {similarity}"
            + (f", label {label}" if label else "")
            + (f", baseline predicts {before}, candidate predicts {after}" if before else "")
        )


@dataclass(frozen=True)
class Finding:
    """The result for one layer and method.

    Args:
        key: The layer, or ``"layer/method"``.
        status: ``"pass"``, ``"regressed"`` or ``"inconclusive"``.
        reason: The reason for the status, in words.
        mean: Mean of the metric over the images with comparable maps; with several baselines, relative to the mean
            among them.
        low: One-sided 95 % lower bound of the mean.
        high: One-sided 95 % upper bound of the mean.
        threshold: The lowest mean that passes.
        count: Number of images with comparable maps.
        quantiles: Quantiles of the metric, by name.
        others: Means of the other similarities, by name.
        chance: Mean similarity to the map of another image.
        degenerate: Fraction of degenerate maps, of the baseline and of the candidate.
        worst: Images whose explanation changed most, the worst first.
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
    """The result of a comparison, with its evidence.

    Args:
        status: The worst status of the findings: ``"pass"``, ``"regressed"``, ``"inconclusive"`` or
            ``"incompatible"``.
        reason: The reason for the status, as a sentence.
        profile: Purpose of the comparison.
        metric: The similarity whose mean decides.
        images: Number of images compared.
        findings: One per layer and method; empty if baseline and candidate are incompatible.
        noise: Change of the baseline's own maps with the batch size, 1 - the mean rank correlation.
        changed_predictions: Fraction of images for which the candidate predicts another class.
        differences: Values of the baseline and of the candidate, by name, where they differ.
        warnings: Reasons why the result is less certain.
        pictures: Figures ``(3, h, w)`` uint8 by the index of each of the worst images of the first finding: the image,
            the evidence of baseline and candidate, and their difference; empty if the images are not stored.
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
        """Whether the explanations are equivalent to the baseline's."""
        return self.status == "pass"

    @property
    def exit_code(self) -> int:
        """Exit code of the command line."""
        return EXIT_CODES[self.status]

    def facts(self) -> dict[str, Any]:
        """Return all fields except for the figures as plain values."""
        return {name: value for name, value in asdict(replace(self, pictures={})).items() if name != "pictures"}

    def text(self) -> str:
        """Render the report for a terminal."""
        lines = [f"{MARKS[self.status]} ({escape_terminal(self.profile)}): {escape_terminal(self.reason)}"]
        for finding in self.findings:
            lines += ["", escape_terminal(finding.key), *align_columns(self.list_facts(finding), 26)]
            lines += ["  worst images"]
            lines += [f"    {escape_terminal(worst.format_line())}" for worst in finding.worst]
        if self.differences:
            rows = [(name, f"{before} -> {after}") for name, before, after in self._list_differences()]
            lines += ["", "differences (baseline -> candidate)", *align_columns(rows, 18)]
        lines += [f"warning: {escape_terminal(warning)}" for warning in self.warnings]
        return "\n".join(lines)

    def markdown(self) -> str:
        """Render the report for a comment on a pull request."""
        title = f"### {MARKS[self.status]}: explanations, {escape_markdown(self.profile)}"
        lines = [title, "", escape_markdown(self.reason)]
        for finding in self.findings:
            facts = format_markdown_table(("", ""), self.list_facts(finding))
            lines += ["", f"**{escape_markdown(finding.key)}**", "", *facts]
            worst = ((str(worst.index), *worst.format_cells()) for worst in finding.worst)
            head = ("worst image", self.metric, "label", "baseline predicts", "candidate predicts")
            lines += ["", *format_markdown_table(head, worst)]
        if self.differences:
            lines += ["", *format_markdown_table(("differences", "baseline", "candidate"), self._list_differences())]
        lines += ["", *(f"> {escape_markdown(warning)}" for warning in self.warnings)] if self.warnings else []
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """Render the report as JSON, without figures; NaN becomes null."""
        return json.dumps(_replace_nonfinite(self.facts()), indent=1, allow_nan=False) + "\n"

    def html(self) -> str:
        """Render the report as one page with figures of baseline, candidate and difference side by side."""
        parts = [f'<p class="note">Warning: {escape_html(warning)}</p>' for warning in self.warnings]
        caption = "image | baseline | candidate | change (photos only; red: more, blue: less)"
        head = ("worst image", self.metric, "label", "baseline predicts", "candidate predicts", caption)
        for i, finding in enumerate(self.findings):
            parts += [f"<h2>{escape_html(finding.key)}</h2>", render_table((), self.list_facts(finding))]
            rows = [[str(worst.index), *worst.format_cells()] for worst in finding.worst]
            figures = [self.pictures.get(worst.index) if i == 0 else None for worst in finding.worst]
            parts.append(render_table(head, rows, figures))
        if self.differences:
            table = render_table(("", "baseline", "candidate"), self._list_differences())
            parts += ["<h2>Differences</h2>", table]
        mark = MARKS[self.status]
        subject = f"explanations, {self.profile}"
        return render_page(f"{mark}: explanations", mark, subject, self.reason, parts, _COLORS[self.status])

    def list_facts(self, finding: Finding) -> list[tuple[str, str]]:
        """Return the numbers of a finding as text, with their names."""
        if self.profile == "retrain":
            requirement = f"at most {format_number(abs(finding.threshold))} below the other training runs"
        else:
            requirement = f"at least {format_number(finding.threshold)}"
        interval = f"{format_number(finding.low)} to {format_number(finding.high)}"
        degenerate, candidate_degenerate = map(format_percent, finding.degenerate)
        return [
            (f"mean {self.metric}", f"{format_number(finding.mean)} (95 %: {interval})"),
            ("required", requirement),
            ("images", f"{finding.count} of {self.images} have comparable maps"),
            ("quantiles", format_numbers(finding.quantiles.items())),
            ("other similarities", format_numbers(finding.others.items())),
            ("chance (another image)", format_number(finding.chance)),
            ("noise of the baseline", format_number(self.noise)),
            ("changed predictions", format_percent(self.changed_predictions)),
            ("degenerate maps", f"baseline {degenerate}, candidate {candidate_degenerate}"),
        ]

    def _list_differences(self) -> list[tuple[str, str, str]]:
        return [(display_name(name), before, after) for name, (before, after) in self.differences.items()]


def _replace_nonfinite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot represent, by None."""
    if isinstance(value, dict):
        return {str(name): _replace_nonfinite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
