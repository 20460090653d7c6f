"""Interpolation of maps to another size."""

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


def resize(maps: Tensor, size: tuple[int, ...], interpolation: Interpolation = "bilinear") -> Tensor:
    """Resize nonnegative maps ``(N, *s)``.

    Raises:
        ValueError: The interpolation does not exist for this number of dimensions, see `check_interpolation`.
    """
    check_interpolation(interpolation, len(size))
    mode = _MODES[interpolation][len(size)]
    if mode == "nearest-exact":
        return F.interpolate(maps[:, None], size=size, mode=mode)[:, 0]
    resized = F.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    return resized.clamp_min(0) if mode == "bicubic" else resized  # bicubic undershoots zero next to a peak
