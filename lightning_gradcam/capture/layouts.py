"""Layouts of module outputs: how a tensor is turned into a map ``(n, C, *grid)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

Grid: TypeAlias = tuple[int, ...]
ToGrid: TypeAlias = Callable[[Tensor], Tensor]


def channels_first(output: Tensor) -> Tensor:
    """Return ``(n, C, *s)`` unchanged."""
    return output


def channels_last(output: Tensor) -> Tensor:
    """Move channels to the front: ``(n, *s, C)`` to ``(n, C, *s)``."""
    return output.movedim(-1, 1)


@dataclass(frozen=True)
class Tokens:
    """The layout of tokens ``(n, extra + prod(grid), C)``, which it turns into ``(n, C, *grid)``.

    Args:
        grid: Grid of the patches.
        extra: Number of tokens that are not patches, such as class tokens, which are left out.
        rows: Dimension of the images: 0, or 1 for ``(L, n, C)``.
        suffix: How many of the extra tokens come after the patches; the others come first.
        order: Dimensions of the grid in the order in which the tokens step through them, the slowest first. Empty for
            ``(0, 1, ...)``.

    >>> import torch
    >>> Tokens((2, 3), extra=1)(torch.arange(7.0).reshape(1, 7, 1))
    tensor([[[[1., 2., 3.],
              [4., 5., 6.]]]])
    >>> Tokens((2, 3), extra=1, suffix=1, order=(1, 0))(torch.arange(7.0).reshape(1, 7, 1))
    tensor([[[[0., 2., 4.],
              [1., 3., 5.]]]])
    """

    grid: Grid
    extra: int = 0
    rows: int = 0
    suffix: int = field(default=0, repr=False)
    order: tuple[int, ...] = field(default=(), repr=False)

    @property
    def prefix(self) -> int:
        """Number of extra tokens before the patches."""
        return self.extra - self.suffix

    def __call__(self, output: Tensor) -> Tensor:
        """Return the patches on their grid."""
        tokens = output.movedim(self.rows, 0)
        patches = tokens[:, self.prefix : tokens.shape[1] - self.suffix].transpose(1, 2)
        order = self.order or tuple(range(len(self.grid)))
        maps = patches.reshape(len(patches), patches.shape[1], *(self.grid[d] for d in order))
        return maps.permute(0, 1, *(2 + order.index(d) for d in range(len(order))))


@dataclass(frozen=True)
class Turned:
    """The layout of maps whose axes the model has exchanged: another layout, and then the axes in the images' order.

    Args:
        layout: Turns the output into ``(n, C, *s)``.
        axes: For each dimension of the images, the dimension of ``s``.
    """

    layout: ToGrid
    axes: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        """Return the map with the axes in the images' order."""
        return self.layout(output).permute(0, 1, *(2 + axis for axis in self.axes))


@dataclass(frozen=True)
class Frames:
    """The layout of frames, or slices, that are rows of a batch: ``(n * count, ...)`` to ``(n, C, count, *s)``.

    Args:
        count: Number of frames of each image.
        layout: Turns the output into ``(n * count, C, *s)``.
    """

    count: int
    layout: ToGrid = channels_first

    def __call__(self, output: Tensor) -> Tensor:
        """Return the maps of the frames, next to each other along the first spatial dimension."""
        maps = self.layout(output)
        return maps.reshape(-1, self.count, *maps.shape[1:]).movedim(1, 2)


def holds_tokens(layout: ToGrid) -> bool:
    """Return whether a layout is one of tokens.

    >>> holds_tokens(Frames(4, Tokens((7, 7)))), holds_tokens(channels_last)
    (True, False)
    """
    return isinstance(layout.layout if isinstance(layout, Frames) else layout, Tokens)


def find_channels_dim(layout: ToGrid) -> int:
    """Return the dimension of the channels in an output of this layout.

    >>> find_channels_dim(Turned(channels_first, (1, 0))), find_channels_dim(Frames(4, channels_last))
    (1, -1)
    """
    while isinstance(layout, (Frames, Turned)):
        layout = layout.layout
    return 1 if layout is channels_first else -1
