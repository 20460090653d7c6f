"""What a baseline holds, shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_gradcam.baseline.data import BaselineData
from lightning_gradcam.baseline.html import render_page, render_table
from lightning_gradcam.baseline.profiles import LEAST_IMAGES
from lightning_gradcam.baseline.text import align_columns, format_markdown_table, format_number, format_percent
from lightning_gradcam.explainer.map_status import degenerate_share
from lightning_gradcam.render.side_by_side import draw_pairs
from lightning_gradcam.targets.logits import predictions
from lightning_gradcam.utils.sanitize import escape_terminal

PICTURES = 16
"""Images that a page shows."""


@dataclass(frozen=True)
class BaselineSummary:
    """A baseline in words, with some of its pictures.

    Args:
        facts: Names and what they are, in words.
        rows: Of the images that are shown: index, label, and the class that was predicted.
        pictures: ``(3, h, w)`` uint8 of these, where images are kept.
        warnings: What makes comparisons with it less sure.
    """

    facts: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, str, str]]
    pictures: Sequence[Tensor]
    warnings: Sequence[str] = ()

    @staticmethod
    def of(kept: BaselineData) -> BaselineSummary:
        """Look through a baseline."""
        shown = list(range(min(len(kept), PICTURES)))
        found = {} if kept.images is None else draw_pairs(kept.images, kept.explanation, shown)
        pictures = [found[i] for i in shown if i in found]
        return BaselineSummary(_facts(kept), [_row(kept, i) for i in shown], pictures, _warnings(kept))

    def text(self) -> str:
        """For a terminal."""
        lines = align_columns(self.facts, 18)
        return "\n".join([*lines, *(f"warning: {escape_terminal(warning)}" for warning in self.warnings)])

    def markdown(self) -> str:
        """For a pull request."""
        return "\n".join(["### Baseline", "", *format_markdown_table(("", ""), self.facts)]) + "\n"

    def json(self) -> str:
        """For machines."""
        return json.dumps(dict(self.facts), indent=1) + "\n"

    def html(self) -> str:
        """One page that holds its pictures."""
        body = [render_table((), self.facts), "<h2>Images</h2>"]
        body.append(render_table(("image", "label", "predicted", "image | evidence"), self.rows, self.pictures))
        return render_page("Baseline", "Baseline", "what was pinned", "", body)


def _facts(kept: BaselineData) -> list[tuple[str, str]]:
    about, explanation = kept.about, kept.explanation
    shape = "×".join(map(str, explanation.size if kept.images is None else kept.images.shape[1:]))
    held = "" if kept.images is not None else ", their hash only"
    normalised = "none" if about.pixels is None else f"mean {list(about.pixels.mean)}, std {list(about.pixels.std)}"
    facts = [
        ("images", f"{len(kept)} of {shape}{held}"),
        ("method", f"{', '.join(about.methods)} of the {about.target}"),
    ]
    for key, evidence in explanation.evidence.items():
        reason = explanation.layers[key].reason
        degenerate = float(degenerate_share(explanation.map_status[key]))
        words = f"maps {'×'.join(map(str, evidence.shape[1:]))}, {format_percent(degenerate)} degenerate"
        facts.append((f"layer {key}", words + (f" ({reason})" if reason else "")))
    noise = "not measured" if about.noise is None else f"{format_number(about.noise)} with the batch size"
    facts += [("normalisation", normalised), ("noise", noise)]
    facts += [
        ("accuracy", format_percent(_accuracy(kept))),
        ("weights", about.weights[:12]),
        ("recorded", about.recorded),
    ]
    return [*facts, *((name, about.surroundings[name]) for name in sorted(about.surroundings))]


def _warnings(kept: BaselineData) -> list[str]:
    readable = {key: int((flaws == 0).sum()) for key, flaws in kept.explanation.map_status.items()}
    return [
        f"{count} of {len(kept)} maps at {key} can be read: comparisons want {LEAST_IMAGES} at least, so give more "
        "images, or another layer"
        for key, count in readable.items()
        if count < LEAST_IMAGES
    ]


def _accuracy(kept: BaselineData) -> float:
    if kept.labels is None or not kept.explanation.logits.shape[1]:
        return float("nan")
    return float((predictions(kept.explanation.logits)[1] == kept.labels).float().mean())


def _row(kept: BaselineData, index: int) -> tuple[str, str, str]:
    label = "" if kept.labels is None else str(int(kept.labels[index]))
    if not kept.explanation.logits.shape[1]:
        return str(index), label, ""
    sure, chosen = predictions(kept.explanation.logits[index : index + 1])
    return str(index), label, f"{int(chosen)} ({float(sure):.0%})"
