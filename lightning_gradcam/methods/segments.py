"""Segmentation of an image into superpixels, and the fill that replaces hidden segments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Fill: TypeAlias = float | Literal["mean"]
"""The replacement of hidden pixels: one value as the model takes it, or each image's mean color."""

Segments: TypeAlias = int | Callable[[Tensor], Tensor]
"""Segments of an image: the number of cells along its longest side, or a function of an image.

The function takes an image ``(1, C, *s)`` and returns the segment's number of each pixel, ``(1, *s)``.
"""


def check_fill(fill: object) -> None:
    """Check that a fill is a number or ``"mean"``.

    Raises:
        ValueError: The fill is neither.
    """
    if fill != "mean" and (isinstance(fill, bool) or not isinstance(fill, (int, float))):
        raise ValueError(f"Expected `fill` to be 'mean' or a number, but got {fill!r}.")


def make_fill(images: Tensor, fill: Fill) -> Tensor:
    """Return the replacement of hidden pixels for images ``(n, C, *s)``, in the same shape.

    >>> make_fill(torch.tensor([[[1.0, 3.0]]]), "mean")
    tensor([[[2., 2.]]])
    """
    if fill == "mean":
        return images.flatten(2).mean(2).reshape(*images.shape[:2], *[1] * (images.ndim - 2)).expand_as(images)
    return torch.full_like(images, fill)


def segment_image(image: Tensor, segments: Segments) -> Tensor:
    """Return the segment number of each pixel of an image ``(1, C, *s)``, as ``(1, 1, *s)`` int64 from 0 on.

    Raises:
        ValueError: A callable returned another shape, or floating-point numbers.

    >>> segment_image(torch.zeros(1, 3, 2, 4), 2)
    tensor([[[[0, 0, 1, 1],
              [0, 0, 1, 1]]]])
    """
    size = image.shape[2:]
    if callable(segments):
        numbers = torch.as_tensor(segments(image)).to(image.device)
        if numbers.is_floating_point() or numbers.shape != (1, *size):
            raise ValueError(
                f"Expected `segments` to return integers of shape (1, {', '.join(map(str, size))}), but got "
                f"{numbers.dtype} of shape {tuple(numbers.shape)}."
            )
        labels: Tensor = torch.unique(numbers, return_inverse=True)[1]
        return labels[:, None]
    cell = max(size) / segments
    counts = [min(side, max(1, round(side / cell))) for side in size]
    grid = torch.arange(math.prod(counts), device=image.device, dtype=torch.float64).reshape(1, 1, *counts)
    return F.interpolate(grid, size=size, mode="nearest-exact").long()
