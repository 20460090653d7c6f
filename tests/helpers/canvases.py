"""Helpers for tests of figures of signals and volumes."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.sheet import Sheet

NAMES = ["pine", "oak", "sailing boat on a lake"]
DEFAULT_HEADING = Heading("t")


def make_sheet(images: Tensor, **kwargs) -> Sheet:
    photos, _ = restore_images(images)
    return Sheet.from_probe(Probe(images, labels=torch.arange(len(images)) % 3), photos, NAMES, **kwargs)


def compute_heatmaps(evidence: Tensor, size: tuple[int, ...], scale: Tensor | None = None) -> Tensor:
    """Return the heatmaps as `Explanation` computes them."""
    status = {"a": find_status(evidence)}
    explanation = Explanation({"a": evidence}, torch.zeros(len(evidence), 0), None, size, map_status=status)
    return explanation.heatmaps(scale=scale)["a"]


def draw_sheet(sheet: Sheet, evidence: Tensor, heading: Heading = DEFAULT_HEADING, **kwargs) -> Tensor:
    logits = torch.eye(3)[torch.arange(len(evidence)) % 3]
    return sheet.draw(evidence, find_status(evidence), logits, heading, **kwargs)
