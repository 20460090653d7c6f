"""Axes of three-dimensional tensors, and axes that match those of an earlier tensor by size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

MAX_EXTRA_TOKENS = 8
"""Upper limit on tokens in front of the patches: class, distillation and register tokens."""


class Axes(NamedTuple):
    """Meaning of the dimensions of a sequence ``(n, C, L)``, ``(n, L, C)`` or ``(L, n, C)``.

    Args:
        batch: Dimension of the images.
        sequence: Dimension of the spatial positions; the remaining one holds the channels.
        is_mixed: Whether a layer has mixed the positions, as a linear layer along the sequence does, so that an index
            no longer stands for a position of the image.
    """

    batch: int
    sequence: int
    is_mixed: bool = False

    @property
    def channels(self) -> int:
        """Dimension of the channels."""
        return 3 - self.batch - self.sequence


CHANNELS_FIRST = Axes(0, 2)
"""``(n, C, L)``, the layout of the images and of convolutions."""

_LAYOUTS = (CHANNELS_FIRST, Axes(0, 1), Axes(1, 0))


class LocatedTensor(NamedTuple):
    """A tensor with its axes, or with None if these are unknown."""

    tensor: Tensor
    axes: Axes | None


def list_layouts(tensor: Tensor, earlier: Tensor, axes: Axes) -> list[Axes]:
    """List the layouts of ``tensor`` in which it has as many images as ``earlier``, whose axes are ``axes``."""
    batch_size = earlier.shape[axes.batch]
    return [layout._replace(is_mixed=axes.is_mixed) for layout in _LAYOUTS if tensor.shape[layout.batch] == batch_size]


def match_sizes(tensor: Tensor, earlier: Sequence[LocatedTensor]) -> list[Axes]:
    """List the axes that fit channels and length of the latest matching tensor, extra tokens in front allowed."""
    for reference, axes in reversed(earlier):
        if axes is None or reference.ndim != tensor.ndim:
            continue
        matches = [
            layout
            for layout in list_layouts(tensor, reference, axes)
            if tensor.shape[layout.channels] == reference.shape[axes.channels]
            and 0 <= tensor.shape[layout.sequence] - reference.shape[axes.sequence] <= MAX_EXTRA_TOKENS
        ]
        if matches:
            return matches
    return []


def match_one_size(tensor: Tensor, earlier: Tensor, axes: Axes) -> list[Axes]:
    """List the axes in which ``tensor`` has as many positions, or as many channels, as ``earlier``."""
    return [
        layout
        for layout in list_layouts(tensor, earlier, axes)
        if tensor.shape[layout.channels] == earlier.shape[axes.channels]
        or tensor.shape[layout.sequence] == earlier.shape[axes.sequence]
    ]
