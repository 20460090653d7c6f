"""Padding."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.probe.probe import Probe

Share: TypeAlias = tuple[float, ...]
"""Which part of a layer's grid the image takes, along each dimension from its start; the rest is padding."""


def find_image_share(model: nn.Module, probe: Probe) -> Share:
    """Which part of what the layers see is the image: torchvision's detectors resize it, and fill up to whole strides.

    Asked of the model's own ``GeneralizedRCNNTransform``; without one, the image is all.
    """
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    resizing = next((m for m in model.modules() if isinstance(m, GeneralizedRCNNTransform)), None)
    if resizing is None:
        return (1.0,) * len(probe.size)
    seen, _ = resizing(list(probe.images[:1]))
    return tuple(side / of for side, of in zip(seen.image_sizes[0], seen.tensors.shape[2:], strict=True))


def crop_padding(evidence: Tensor, share: Share) -> Tensor:
    """The part of evidence ``(n, h, w)`` that lies on the image, on as many cells as that part touches.

    Where it ends between cells, values are interpolated, as enlarging the whole map and cutting the padding off would.

    >>> evidence = torch.arange(4.0).reshape(1, 1, 4)
    >>> crop_padding(evidence, (1.0, 0.5)), crop_padding(evidence, (1.0, 0.625))
    (tensor([[[0., 1.]]]), tensor([[[0.0000, 0.7500, 1.5833]]]))
    """
    for dimension, part in enumerate(share, start=1):
        if part < 1:
            evidence = _cut(evidence.movedim(dimension, -1), part).movedim(-1, dimension)
    return evidence


def _cut(evidence: Tensor, part: float) -> Tensor:
    cells = evidence.shape[-1] * part
    count = max(1, -int(-(cells - 1e-6) // 1))
    centres = (torch.arange(count, device=evidence.device, dtype=torch.float64) + 0.5) * (cells / count) - 0.5
    centres = centres.clamp(0, evidence.shape[-1] - 1)
    before = centres.floor().long()
    after = (before + 1).clamp_max(evidence.shape[-1] - 1)
    weight = (centres - before).to(evidence.dtype)
    return torch.lerp(evidence.index_select(-1, before), evidence.index_select(-1, after), weight)
