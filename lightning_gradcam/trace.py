"""What one forward pass did, layer by layer, and the places that were chosen from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


def channels_first(output: Tensor) -> Tensor:
    """``(n, C, *s)`` as it is."""
    return output


def channels_last(output: Tensor) -> Tensor:
    """``(n, *s, C)`` to ``(n, C, *s)``."""
    return output.movedim(-1, 1)


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


@dataclass(frozen=True)
class LayerShape:
    """What one module returned in a traced pass.

    Args:
        name: Of modules that returned the same tensor, the outermost.
        kind: Class name of the module that made the tensor, the innermost of these.
        shape: Of the tensor, ``(n, ...)``.
        grid: Its spatial dimensions, or None where it has no place for evidence.
        call: Which call of the module; -1 for the last (and so for the only) one.
        reaches: Whether the score's gradient reaches it.
        to_grid: Turns it into ``(n, C, *grid)``.
        inner: The other modules that returned the same tensor, the innermost first.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    grid: tuple[int, ...] | None
    call: int = -1
    reaches: bool = True
    to_grid: Callable[[Tensor], Tensor] = channels_first
    inner: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """How many places for evidence there are."""
        return math.prod(self.grid) if self.grid else 0


def read_layout(
    shape: tuple[int, ...], image: tuple[int, ...]
) -> tuple[tuple[int, ...] | None, Callable[[Tensor], Tensor]]:
    """Find the grid in a layer's output ``shape`` for images with spatial dimensions ``image``.

    Features are taken as ``(n, C, *s)``, and as ``(n, *s, C)`` only where that alone has the proportions of the image.

    >>> read_layout((2, 512, 7, 7), (224, 224))[0], read_layout((2, 7, 7, 768), (224, 224))[0]
    ((7, 7), (7, 7))
    >>> print(read_layout((2, 1000), (224, 224))[0])
    None
    """
    if len(shape) != len(image) + 2:
        return None, channels_first
    first, last = shape[2:], shape[1:-1]
    # One dimension has no proportions, and a transposed (n, L, C) cannot be told from (n, C, L).
    if len(image) > 1 and _distortion(last, image) < 0.05 and _distortion(first, image) > 0.2:
        return last, channels_last
    return first, channels_first


def _distortion(grid: tuple[int, ...], image: tuple[int, ...]) -> float:
    strides = [math.log(i / g) for i, g in zip(image, grid, strict=True)]
    return max(strides) - min(strides)
