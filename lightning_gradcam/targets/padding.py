"""Part of a layer's grid that the image covers; the remainder is padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.utils.cell_centers import CellCenters

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


def crop_centers(centers: CellCenters, grid: Sequence[int], fraction: ImageFraction) -> CellCenters:
    """Return the centers in the image of the cells that `crop_padding` returns.

    Args:
        centers: Centers of all cells, where the padded image extends from 0 to 1.
        grid: Number of cells along each axis.
        fraction: Fraction of the padded image that the image covers.

    >>> crop_centers(CellCenters.spread((4,)), (4,), (0.5,))
    CellCenters(offset=(0.25,), step=(0.5,))
    """
    offsets, steps = [], []
    for offset, step, cells, covered in zip(centers.offset, centers.step, grid, fraction, strict=True):
        distance = 1.0 if covered == 1 else cells * covered / _count_cells(cells * covered)
        offsets.append((offset + step * (0.5 * distance - 0.5)) / covered)
        steps.append(step * distance / covered)
    return CellCenters(tuple(offsets), tuple(steps))


def _count_cells(length: float) -> int:
    """Return the number of cells that an image touches which extends over this many."""
    return max(1, -int(-(length - 1e-6) // 1))


def _crop_last(evidence: Tensor, covered: float) -> Tensor:
    """Crop the last dimension to its first fraction, with linear interpolation."""
    length = evidence.shape[-1] * covered
    count = _count_cells(length)
    centers = (torch.arange(count, device=evidence.device, dtype=torch.float64) + 0.5) * (length / count) - 0.5
    centers = centers.clamp(0, evidence.shape[-1] - 1)
    left = centers.floor().long()
    right = (left + 1).clamp_max(evidence.shape[-1] - 1)
    weight = (centers - left).to(evidence.dtype)
    return torch.lerp(evidence.index_select(-1, left), evidence.index_select(-1, right), weight)
