"""Parts of an image, and what is seen where they are hidden."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Fill: TypeAlias = float | Literal["mean"]
"""What hides a place: one value as the model takes it, or each image's mean colour."""

Segments: TypeAlias = int | Callable[[Tensor], Tensor]
"""How an image is cut: cells along its longest side, or from ``(1, C, *s)`` to ``(1, *s)`` numbers."""


def check_fill(fill: object) -> None:
    """Raise a ValueError where it is neither a number nor ``"mean"``."""
    if fill != "mean" and (isinstance(fill, bool) or not isinstance(fill, (int, float))):
        raise ValueError(f"Expected `fill` to be 'mean' or a number, but got {fill!r}.")


def make_fill(images: Tensor, fill: Fill) -> Tensor:
    """What is seen where images ``(n, C, *s)`` are hidden, of the same shape.

    >>> make_fill(torch.tensor([[[1.0, 3.0]]]), "mean")
    tensor([[[2., 2.]]])
    """
    if fill == "mean":
        return images.flatten(2).mean(2).reshape(*images.shape[:2], *[1] * (images.ndim - 2)).expand_as(images)
    return torch.full_like(images, fill)


def segment_image(image: Tensor, segments: Segments) -> Tensor:
    """The number of its segment for each place of an image ``(1, C, *s)``: ``(1, 1, *s)`` int64, from 0 on.

    Raises:
        ValueError: A callable returned something else.

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
