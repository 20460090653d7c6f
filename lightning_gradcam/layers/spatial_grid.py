"""Where in a module's output the places of the image are: maps, channels first or last, and sequences of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lightning_gradcam.capture.layer import Grid, ToGrid, Tokens, channels_first, channels_last
from lightning_gradcam.layers.axis_tracking import EXTRA, FIRST, Axes, AxisTracker, TensorOrigin

_REDUCTIONS = (2, 4, 8)
_EXTRA_SHARE = 8  # more extra tokens than this part make a grid out of any number


def find_tokens(length: int, image: Grid, grids: Sequence[Grid] = ()) -> Tokens | None:
    """Find the grid that ``length`` tokens were made of, for images with spatial dimensions ``image``.

    The latest of the ``grids`` that convolutions made before comes first, then these with sides divided by 2, 4 or 8
    (patches that were merged); where there are none, a grid with the proportions of the image.

    >>> find_tokens(50, (224, 224)), find_tokens(201, (224, 224), [(14, 14)])
    (Tokens(grid=(7, 7), extra=1, rows=0), Tokens(grid=(14, 14), extra=5, rows=0))
    >>> find_tokens(6, (32, 48), [(16, 24), (8, 12)]), find_tokens(23, (224, 224))
    (Tokens(grid=(2, 3), extra=0, rows=0), None)
    """
    for grid in reversed(grids):
        cells = math.prod(grid)
        if cells > 1 and 0 <= length - cells <= min(EXTRA, cells - 1):
            return Tokens(grid, length - cells)
    for grid in reversed(grids):
        for reduction in _REDUCTIONS:
            merged = tuple(math.ceil(side / reduction) for side in grid)
            if math.prod(merged) == length > 1:
                return Tokens(merged)
    if grids:
        return None
    for extra in range(EXTRA + 1):
        cells = length - extra
        scale = (max(cells, 0) / math.prod(image)) ** (1 / len(image))
        grid = tuple(round(side * scale) for side in image)
        if math.prod(grid) == cells > _EXTRA_SHARE * extra:
            return Tokens(grid, extra)
    return None


@dataclass
class GridInference:
    """Reads one output after the other, in order of execution: what came before tells what tokens are made of.

    Features are taken as ``(n, C, *s)``, and as ``(n, *s, C)`` only where that alone has the proportions of the image,
    or is a grid from before, with sides divided or not; ``(n, L, C)``, and ``(L, n, C)``, as tokens where `find_tokens`
    finds their grid.

    Of signals, shapes alone do not tell which dimension the places are: there, `AxisTracker` follows them.

    Args:
        image: The images' spatial dimensions.
        rows: How many images there are.

    >>> layouts = GridInference((224, 224), 2)
    >>> [layouts.read(shape)[0] for shape in [(2, 512, 7, 7), (2, 7, 7, 768), (2, 50, 64), (2, 1000), (8, 49, 64)]]
    [(7, 7), (7, 7), (7, 7), None, None]
    """

    image: Grid
    rows: int
    grids: list[Grid] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)

    def read(self, shape: tuple[int, ...]) -> tuple[Grid | None, ToGrid]:
        """The grid of an output of that shape, or None, and what turns it into ``(n, C, *grid)``."""
        if len(shape) == 3 and len(self.image) > 1:
            return self._tokens(shape)
        if len(shape) != len(self.image) + 2 or shape[0] != self.rows:
            return None, channels_first
        first, last = shape[2:], shape[1:-1]
        proportions = _distortion(last, self.image) < 0.05 and _distortion(first, self.image) > 0.2
        known = self._is_known(last) and not self._is_known(first)  # padded windows and clips change proportions
        if len(self.image) > 1 and (proportions or known):
            grid, to_grid = last, channels_last
        elif self.grids and shape[1] * shape[2] == math.prod(self.grids[-1]) and not self._is_known(first):
            return None, channels_first  # of windows and the tokens in them
        else:
            grid, to_grid = first, channels_first
        if any(length in grid and math.prod(grid) > length for length in self.lengths):
            return None, channels_first  # of tokens and heads, or of tokens and tokens, inside an attention
        self.grids.append(grid)
        return grid, to_grid

    def follow(self, origin: TensorOrigin, places: AxisTracker) -> tuple[Grid | None, ToGrid]:
        """The same for an output of that origin."""
        shape = tuple(origin.returned.shape)
        axes = places.read(origin)
        if len(self.image) > 1 or len(shape) != 3:
            return self.read(shape)
        if axes and axes.lost and (shape[axes.places],) in (self.image, *self.grids):
            axes = places.found()
        if axes is None or axes.lost:
            return None, channels_first
        return self._along(shape, axes)

    def _along(self, shape: tuple[int, ...], axes: Axes) -> tuple[Grid | None, ToGrid]:
        length = shape[axes.places]
        if axes == FIRST:
            self.grids.append((length,))
            return (length,), channels_first
        tokens = find_tokens(length, self.image, [self.image, *self.grids])
        if tokens is None:
            if self.grids:
                return None, channels_first
            tokens = Tokens((length,))  # the first of all: pieces of the signal
        self.grids.append(tokens.grid)
        return tokens.grid, replace(tokens, rows=axes.rows)

    def _is_known(self, grid: Grid) -> bool:
        def from_(known: Grid) -> bool:
            pairs = zip(grid, known, strict=True)
            return all(any(side in (k // r, math.ceil(k / r)) for r in (1, *_REDUCTIONS)) for side, k in pairs)

        return any(map(from_, self.grids))

    def _tokens(self, shape: tuple[int, ...]) -> tuple[Grid | None, ToGrid]:
        rows = next((i for i in (0, 1) if shape[i] == self.rows), None)
        if rows is None:
            return None, channels_first
        length = shape[1 - rows]
        tokens = find_tokens(length, self.image, self.grids)
        if tokens is None:
            return None, channels_first
        self.lengths.add(length)
        return tokens.grid, Tokens(tokens.grid, tokens.extra, rows)


def _distortion(grid: Grid, image: Grid) -> float:
    strides = [math.log(i / g) for i, g in zip(image, grid, strict=True)]
    return max(strides) - min(strides)
