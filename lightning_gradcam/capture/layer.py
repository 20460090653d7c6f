"""What one forward pass did, layer by layer, and the places that were chosen from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

Grid: TypeAlias = tuple[int, ...]
ToGrid: TypeAlias = Callable[[Tensor], Tensor]


def channels_first(output: Tensor) -> Tensor:
    """``(n, C, *s)`` as it is."""
    return output


def channels_last(output: Tensor) -> Tensor:
    """``(n, *s, C)`` to ``(n, C, *s)``."""
    return output.movedim(-1, 1)


@dataclass(frozen=True)
class Tokens:
    """Turns tokens ``(n, extra + prod(grid), C)`` into ``(n, C, *grid)``; the extra ones come first and are left out.

    Args:
        grid: Of the patches.
        extra: How many tokens are no patches.
        rows: Which dimension the images are: 0, or 1 for ``(L, n, C)``.

    >>> import torch
    >>> Tokens((2, 3), extra=1)(torch.arange(7.0).reshape(1, 7, 1))
    tensor([[[[1., 2., 3.],
              [4., 5., 6.]]]])
    """

    grid: Grid
    extra: int = 0
    rows: int = 0

    def __call__(self, output: Tensor) -> Tensor:
        """The patches on their grid."""
        patches = output.movedim(self.rows, 0)[:, self.extra :]
        return patches.transpose(1, 2).reshape(len(patches), -1, *self.grid)


PIXELS, ATTENTION = "input pixels", "all attention"
"""Names of the places of evidence that are no module's output: the images, and all attention of a pass together."""


@dataclass(frozen=True)
class Layer:
    """A place in the model whose output is explained.

    Args:
        name: The module, as ``named_modules`` spells it. Of modules that return the same tensor, the outermost.
        call: Which call of it, counted from 0, where it runs several times in one pass; -1 is the last.
        reason: Why it was chosen, in words.
        to_grid: Turns its output into ``(n, C, *s)``.
    """

    name: str
    call: int = -1
    reason: str = ""
    to_grid: Callable[[Tensor], Tensor] = channels_first

    @property
    def key(self) -> str:
        """How explanations name this layer."""
        return self.name if self.call == -1 else f"{self.name}[{self.call}]"

    @property
    def is_module(self) -> bool:
        """Whether it is a module's output; else it is one of the places of another kind."""
        return self.name not in (PIXELS, ATTENTION)


@dataclass(frozen=True)
class LayerRecord:
    """What one module returned in a traced pass.

    Args:
        name: Of modules that returned the same tensor, the outermost.
        kind: Class name of the module that made the tensor, the innermost of these.
        shape: Of the tensor, ``(n, ...)``.
        grid: Its spatial dimensions, or None where it has no place for evidence.
        call: Which call of the module; -1 for the last (and so for the only) one.
        reaches: Whether the score's gradient reaches it; of tokens, whether it reaches patches.
        touched: The share of its places with a gradient other than zero, in at least one image.
        to_grid: Turns it into ``(n, C, *grid)``.
        inner: The other modules that returned the same tensor, the innermost first.
        answers: Whether it already is the model's answer: scores of classes, place by place.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    grid: tuple[int, ...] | None
    call: int = -1
    reaches: bool = True
    touched: float = 1.0
    to_grid: Callable[[Tensor], Tensor] = channels_first
    inner: tuple[str, ...] = ()
    answers: bool = False

    @property
    def tokens(self) -> bool:
        """Whether the grid is one of tokens."""
        return isinstance(self.to_grid, Tokens)

    @property
    def cells(self) -> int:
        """How many places for evidence there are."""
        return math.prod(self.grid) if self.grid else 0


def is_vanishing(shapes: Iterable[LayerRecord]) -> bool:
    """Whether the gradient is zero at all places, so that nothing tells which tokens it could reach."""
    return not any(s.touched for s in shapes if s.cells > 1)


def split_layers(layers: Sequence[Layer]) -> tuple[list[Layer], dict[str, Layer]]:
    """What modules return, and by their keys the places of another kind.

    >>> split_layers([Layer("conv"), Layer(PIXELS)])[1].keys()
    dict_keys(['input pixels'])
    """
    modules, others = [layer for layer in layers if layer.is_module], [y for y in layers if not y.is_module]
    return modules, {layer.key: layer for layer in others}
