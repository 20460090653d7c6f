"""Interpolation of maps to another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.utils.cell_centers import CellCenters

Interpolation: TypeAlias = Literal["bilinear", "nearest", "bicubic"]

_MODES = {
    "bilinear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "nearest": dict.fromkeys((1, 2, 3), "nearest-exact"),
    "bicubic": {2: "bicubic"},
}


def check_interpolation(interpolation: str, dimensions: int = 2) -> None:
    """Check that an interpolation exists for maps with this number of spatial dimensions.

    Raises:
        ValueError: It does not.
    """
    choices = [name for name, modes in _MODES.items() if dimensions in modes]
    if interpolation not in choices:
        raise ValueError(
            f"Expected `interpolation` of {dimensions}-dimensional maps to be {', '.join(map(repr, choices))}, but got "
            f"{interpolation!r}."
        )


def resize(
    maps: Tensor, size: tuple[int, ...], interpolation: Interpolation = "bilinear", centers: CellCenters | None = None
) -> Tensor:
    """Resize nonnegative maps ``(N, *s)`` to an image of ``size``.

    Args:
        maps: The maps.
        size: Spatial dimensions of the result.
        interpolation: How values between cells are computed.
        centers: Centers of the cells in the image; by default they cover it evenly.

    Raises:
        ValueError: The interpolation does not exist for this number of dimensions, see `check_interpolation`.
    """
    check_interpolation(interpolation, len(size))
    if centers is not None:
        positions = centers.locate(CellCenters.spread(size), size, maps.device)
        return resample(maps, positions, interpolation)
    mode = _MODES[interpolation][len(size)]
    if mode == "nearest-exact":
        return F.interpolate(maps[:, None], size=size, mode=mode)[:, 0]
    resized = F.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    return resized.clamp_min(0) if mode == "bicubic" else resized  # bicubic undershoots zero next to a peak


def resample(maps: Tensor, positions: Sequence[Tensor], interpolation: Interpolation = "bilinear") -> Tensor:
    """Read nonnegative maps ``(N, *s)`` at fractional indices, along one axis after another.

    Args:
        maps: The maps.
        positions: For each spatial axis, ``(t,)`` indices. The outermost cells extend by half a cell beyond their
            centers, as in an even stretch. From there on the map fades to 0 within a cell, since no cell lies there.
        interpolation: How values between cells are computed.

    Returns:
        ``(N, *t)``.

    >>> resample(torch.tensor([[0.0, 4.0, 8.0]]), [torch.tensor([0.0, 0.25, 2.0, 2.5, 3.0, 3.5])])
    tensor([[0., 1., 8., 8., 4., 0.]])
    """
    for axis, indices in enumerate(positions, start=1):
        maps = _read_axis(maps, axis, indices, interpolation)
    return maps.clamp_min(0) if interpolation == "bicubic" else maps


def _read_axis(maps: Tensor, axis: int, indices: Tensor, interpolation: Interpolation) -> Tensor:
    """Read maps at fractional indices along one axis, see `resample`."""
    last, shape = maps.shape[axis] - 1, [-1 if d == axis else 1 for d in range(maps.ndim)]
    beyond = torch.maximum(-indices, indices - last)
    if interpolation == "nearest":
        nearest = maps.index_select(axis, (indices + 0.5).long().clamp(0, last))
        return nearest * (beyond <= 0.5).to(maps.dtype).reshape(shape)
    maps = _interpolate(maps, axis, indices, interpolation)
    return maps * (1.5 - beyond).clamp(0, 1).to(maps.dtype).reshape(shape)


def _interpolate(maps: Tensor, axis: int, indices: Tensor, interpolation: Interpolation) -> Tensor:
    """Interpolate maps along one axis; cells beyond the ends have the values at the ends."""
    last, first = maps.shape[axis] - 1, indices.floor()
    fraction = (indices - first).to(maps.dtype).reshape([-1 if d == axis else 1 for d in range(maps.ndim)])

    def select(step: int) -> Tensor:
        return maps.index_select(axis, (first + step).long().clamp(0, last))

    if interpolation == "bilinear":
        return torch.lerp(select(0), select(1), fraction)
    weights = _weigh_cubic(fraction)
    return torch.stack([select(step) * weight for step, weight in zip(range(-1, 3), weights, strict=True)]).sum(0)


def _weigh_cubic(fraction: Tensor) -> Sequence[Tensor]:
    """Return the weights of the four cells around a position, those of PyTorch (Keys 1981, with a = -0.75)."""
    a = -0.75

    def weigh_near(x: Tensor) -> Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def weigh_far(x: Tensor) -> Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return weigh_far(fraction + 1), weigh_near(fraction), weigh_near(1 - fraction), weigh_far(2 - fraction)
