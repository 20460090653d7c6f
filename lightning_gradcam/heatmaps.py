"""Maps for showing: evidence stretched to [0, 1] and enlarged."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Interpolation: TypeAlias = Literal["bilinear", "nearest", "bicubic"]

_MODES = {
    "bilinear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "nearest": dict.fromkeys((1, 2, 3), "nearest-exact"),
    "bicubic": {2: "bicubic"},
}


@torch.no_grad()
def to_heatmaps(
    evidence: Tensor,
    flaws: Tensor,
    size: tuple[int, ...],
    scale: float | Tensor | None = None,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """`Explanation.heatmaps` for the evidence ``(N, *s)`` of one layer."""
    usable = (flaws == 0).reshape(-1, *[1] * (evidence.ndim - 1))
    maps = torch.where(usable, evidence.relu(), 0)
    if scale is None:
        maps = _stretch(maps)
    else:
        # Constant maps have a magnitude, so on a common scale they can be shown.
        shown = ((flaws == 0) | (flaws == 4)).reshape(usable.shape)
        unit = torch.as_tensor(scale, device=maps.device).clamp_min(1e-38)
        maps = (torch.where(shown, evidence.relu(), 0) / unit).clamp_max(1e6)  # finite, also where the scale is tiny
    maps = resize(maps, size, interpolation)
    # Interpolation can cut the peak, so pytorch-grad-cam stretches once more.
    return _stretch(maps) if scale is None else maps.clamp(0, 1)


def check_interpolation(interpolation: str, dimensions: int = 2) -> None:
    """Raise a ValueError where there is no such interpolation in as many dimensions."""
    choices = [name for name, modes in _MODES.items() if dimensions in modes]
    if interpolation not in choices:
        raise ValueError(
            f"Expected `interpolation` of {dimensions}-dimensional maps to be {', '.join(map(repr, choices))}, but got "
            f"{interpolation!r}."
        )


def resize(maps: Tensor, size: tuple[int, ...], interpolation: Interpolation = "bilinear") -> Tensor:
    """Maps ``(N, *s)``, none below zero, at another size; errors as of `check_interpolation`."""
    check_interpolation(interpolation, len(size))
    mode = _MODES[interpolation][len(size)]
    if mode == "nearest-exact":
        return F.interpolate(maps[:, None], size=size, mode=mode)[:, 0]
    enlarged = F.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    return enlarged.clamp_min(0) if mode == "bicubic" else enlarged  # which swings below zero beside a peak


def _stretch(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    extent = high - low
    # No epsilon: a map whose maximum is 1e-9 is a map. Where there is no extent, there is nothing to divide.
    return ((flat - low) / torch.where(extent > 0, extent, 1)).reshape(maps.shape)
