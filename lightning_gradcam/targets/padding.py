"""Part of a layer's grid that the image covers; the remainder is padding."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.probe.probe import Probe

ImageFraction: TypeAlias = tuple[float, ...]
"""Fraction of a layer's grid that the image covers, along each dimension from its start."""


def find_image_fraction(model: nn.Module, probe: Probe) -> ImageFraction:
    """Find the fraction of the layers' grid that the image covers.

    torchvision's detectors resize images and pad them to whole strides, with a ``GeneralizedRCNNTransform``. The
    model's own transform runs on the first image. Without one, the image covers the whole grid.
    """
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    transform = next((m for m in model.modules() if isinstance(m, GeneralizedRCNNTransform)), None)
    if transform is None:
        return (1.0,) * len(probe.size)
    padded, _ = transform(list(probe.images[:1]))
    return tuple(side / total for side, total in zip(padded.image_sizes[0], padded.tensors.shape[2:], strict=True))


def crop_padding(evidence: Tensor, fraction: ImageFraction) -> Tensor:
    """Crop evidence ``(n, h, w)`` to the image, on as many cells as the image touches.

    If the image ends between two cells, values are interpolated, as if the whole map were resized and then cropped.

    >>> evidence = torch.arange(4.0).reshape(1, 1, 4)
    >>> crop_padding(evidence, (1.0, 0.5)), crop_padding(evidence, (1.0, 0.625))
    (tensor([[[0., 1.]]]), tensor([[[0.0000, 0.7500, 1.5833]]]))
    """
    for dimension, covered in enumerate(fraction, start=1):
        if covered < 1:
            evidence = _crop_last(evidence.movedim(dimension, -1), covered).movedim(-1, dimension)
    return evidence


def _crop_last(evidence: Tensor, covered: float) -> Tensor:
    """Crop the last dimension to its first fraction, with linear interpolation."""
    length = evidence.shape[-1] * covered
    count = max(1, -int(-(length - 1e-6) // 1))
    centers = (torch.arange(count, device=evidence.device, dtype=torch.float64) + 0.5) * (length / count) - 0.5
    centers = centers.clamp(0, evidence.shape[-1] - 1)
    left = centers.floor().long()
    right = (left + 1).clamp_max(evidence.shape[-1] - 1)
    weight = (centers - left).to(evidence.dtype)
    return torch.lerp(evidence.index_select(-1, left), evidence.index_select(-1, right), weight)
