"""Interpolation."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor
from torch.nn import functional as F

Interpolation: TypeAlias = Literal["bilinear", "nearest", "bicubic"]

_MODES = {
    "bilinear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "nearest": dict.fromkeys((1, 2, 3), "nearest-exact"),
    "bicubic": {2: "bicubic"},
}


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
