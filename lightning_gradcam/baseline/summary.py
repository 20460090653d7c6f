"""The contents of a baseline, rendered as text, Markdown, JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_gradcam.baseline.data import BaselineData, BaselineMetadata
from lightning_gradcam.baseline.html import render_page, render_table
from lightning_gradcam.baseline.profiles import MIN_IMAGES, RECOMMENDED_IMAGES
from lightning_gradcam.baseline.text import (
    align_columns,
    display_name,
    format_markdown_table,
    format_number,
    format_percent,
)
from lightning_gradcam.explainer.map_status import compute_degenerate_fraction
from lightning_gradcam.render.side_by_side import draw_pairs
from lightning_gradcam.targets.logits import predictions
from lightning_gradcam.utils.sanitize import escape_terminal

SHOWN_IMAGES = 16
"""Images on a page, at most."""


@dataclass(frozen=True)
class BaselineSummary:
    """The contents of a baseline as text, with some of its images.

    Args:
        facts: Names and values.
        rows: For each image shown: index, label, and the predicted class.
        figures: ``(3, h, w)`` uint8 for each image shown; empty if images are not stored.
        warnings: Reasons why comparisons with the baseline are less certain.
    """

    facts: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, str, str]]
    figures: Sequence[Tensor]
    warnings: Sequence[str] = ()

    @staticmethod
    def from_baseline(baseline: BaselineData) -> BaselineSummary:
        """Summarize a baseline."""
        indices = list(range(min(len(baseline), SHOWN_IMAGES)))
        figures = (
            {}
            if baseline.images is None
            else draw_pairs(baseline.images, baseline.explanation, indices, baseline.metadata.bands)
        )
        return BaselineSummary(
            facts=_list_facts(baseline),
            rows=[_format_row(baseline, i) for i in indices],
            figures=[figures[i] for i in indices if i in figures],
            warnings=_list_warnings(baseline),
        )

    def text(self) -> str:
        """Render the summary for a terminal."""
        lines = align_columns(self._list_shown_facts(), 18)
        return "\n".join([*lines, *(f"warning: {escape_terminal(warning)}" for warning in self.warnings)])

    def markdown(self) -> str:
        """Render the summary for a pull request."""
        return "\n".join(["### Baseline", "", *format_markdown_table(("", ""), self._list_shown_facts())]) + "\n"

    def json(self) -> str:
        """Render the facts as JSON."""
        return json.dumps(dict(self.facts), indent=1) + "\n"

    def html(self) -> str:
        """Render the summary as one page with figures."""
        body = [render_table((), self._list_shown_facts()), "<h2>Images</h2>"]
        body.append(render_table(("image", "label", "predicted", "image | evidence"), self.rows, self.figures))
        return render_page("Baseline", "Baseline", "recorded explanations", "", body)

    def _list_shown_facts(self) -> list[tuple[str, str]]:
        return [(display_name(name), value) for name, value in self.facts]


def _list_facts(baseline: BaselineData) -> list[tuple[str, str]]:
    """Return names, which are keys of the JSON, and values."""
    metadata, explanation = baseline.metadata, baseline.explanation
    shape = "×".join(map(str, explanation.size if baseline.images is None else baseline.images.shape[1:]))
    facts = [
        ("images", f"{len(baseline)} of {shape}{'' if baseline.images is not None else ', only their hash is stored'}"),
        ("method", f"{', '.join(metadata.methods)} of the {metadata.target}"),
    ]
    for key, evidence in explanation.evidence.items():
        reason = explanation.layers[key].reason
        degenerate = float(compute_degenerate_fraction(explanation.map_status[key]))
        maps = f"maps {'×'.join(map(str, evidence.shape[1:]))}, {format_percent(degenerate)} degenerate"
        if key in explanation.centers:
            shift = explanation.centers[key].measure_shift(evidence.shape[1:], explanation.size)
            maps += f", cells placed by their receptive fields (stretching would be off by up to {shift:.1f} pixels)"
        facts.append((f"layer {key}", maps + (f" ({reason})" if reason else "")))
    return [
        *facts,
        ("normalisation", metadata.describe_normalization()),
        ("noise", _describe_noise(metadata)),
        ("accuracy", format_percent(_compute_accuracy(baseline))),
        ("weights", metadata.weights_hash[:12]),
        ("recorded", metadata.recorded),
        *sorted(metadata.environment.items()),
    ]


def _describe_noise(metadata: BaselineMetadata) -> str:
    if metadata.noise is None:
        return "not measured"
    return f"maps change by {format_number(metadata.noise)} with the batch size"


def _list_warnings(baseline: BaselineData) -> list[str]:
    readable = {key: int((status == 0).sum()) for key, status in baseline.explanation.map_status.items()}
    return [
        f"Only {count} of {len(baseline)} maps at {key} can be compared. Confidence intervals are too narrow below "
        f"{MIN_IMAGES}; {RECOMMENDED_IMAGES} are recommended. Record more images, or choose another layer."
        for key, count in readable.items()
        if count < MIN_IMAGES
    ]


def _compute_accuracy(baseline: BaselineData) -> float:
    if baseline.labels is None or not baseline.explanation.logits.shape[1]:
        return float("nan")
    return float((predictions(baseline.explanation.logits)[1] == baseline.labels).float().mean())


def _format_row(baseline: BaselineData, index: int) -> tuple[str, str, str]:
    """Return index, label and prediction of an image."""
    label = "" if baseline.labels is None else str(int(baseline.labels[index]))
    if not baseline.explanation.logits.shape[1]:
        return str(index), label, ""
    probability, predicted = predictions(baseline.explanation.logits[index : index + 1])
    return str(index), label, f"{int(predicted)} ({float(probability):.0%})"
