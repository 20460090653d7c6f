"""What tests of pictures of signals and volumes share."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.sheet import Sheet

NAMES = ["pine", "oak", "sailing boat on a lake"]


def sheet_of(images: Tensor, **kwargs) -> Sheet:
    photos, _ = restore_images(images)
    return Sheet.of(Probe(images, labels=torch.arange(len(images)) % 3), photos, NAMES, **kwargs)


def explained(evidence: Tensor, size: tuple[int, ...], scale: Tensor | None = None) -> Tensor:
    """Heatmaps as `explain` returns them."""
    found = Explanation(
        {"a": evidence}, torch.zeros(len(evidence), 0), None, size, map_status={"a": find_status(evidence)}
    )
    return found.heatmaps(scale=scale)["a"]


def drawn(sheet: Sheet, evidence: Tensor, **kwargs) -> Tensor:
    return sheet.draw(
        evidence, find_status(evidence), torch.eye(3)[torch.arange(len(evidence)) % 3], title="t", **kwargs
    )
