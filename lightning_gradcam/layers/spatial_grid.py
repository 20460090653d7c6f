"""Spatial grid of a module's output: feature maps with channels first or last, and sequences of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lightning_gradcam.capture.layer import Grid, ToGrid, Tokens, channels_first, channels_last
from lightning_gradcam.layers.axes import CHANNELS_FIRST, MAX_EXTRA_TOKENS, Axes
from lightning_gradcam.layers.axis_tracking import AxisTracker
from lightning_gradcam.layers.tensor_history import TensorOrigin

_REDUCTIONS = (2, 4, 8)
_MIN_PATCHES_PER_EXTRA_TOKEN = 8  # with fewer patches, some number of extra tokens makes a grid out of any length


def find_tokens(length: int, image_size: Grid, grids: Sequence[Grid] = ()) -> Tokens | None:
    """Find the grid of a sequence of ``length`` tokens, for images with spatial dimensions ``image_size``.

    The latest of the ``grids`` that convolutions returned earlier comes first, then these with sides divided by 2, 4 or
    8 (merged patches); without any, a grid with the proportions of the image.

    >>> find_tokens(50, (224, 224)), find_tokens(201, (224, 224), [(14, 14)])
    (Tokens(grid=(7, 7), extra=1, rows=0), Tokens(grid=(14, 14), extra=5, rows=0))
    >>> find_tokens(6, (32, 48), [(16, 24), (8, 12)]), find_tokens(23, (224, 224))
    (Tokens(grid=(2, 3), extra=0, rows=0), None)
    """
    if grids:
        return _match_earlier_grid(length, grids) or _match_merged_grid(length, grids)
    return _match_proportions(length, image_size)


def _match_earlier_grid(length: int, grids: Sequence[Grid]) -> Tokens | None:
    """Find the latest grid that has ``length`` cells, or up to `MAX_EXTRA_TOKENS` fewer."""
    for grid in reversed(grids):
        cells = math.prod(grid)
        if cells > 1 and 0 <= length - cells <= min(MAX_EXTRA_TOKENS, cells - 1):
            return Tokens(grid, length - cells)
    return None


def _match_merged_grid(length: int, grids: Sequence[Grid]) -> Tokens | None:
    """Find the latest grid that has ``length`` cells when its sides are divided by 2, 4 or 8."""
    for grid in reversed(grids):
        for reduction in _REDUCTIONS:
            merged = tuple(math.ceil(side / reduction) for side in grid)
            if math.prod(merged) == length > 1:
                return Tokens(merged)
    return None


def _match_proportions(length: int, image_size: Grid) -> Tokens | None:
    """Find a grid with the proportions of the image, with as few extra tokens as possible."""
    for extra in range(MAX_EXTRA_TOKENS + 1):
        cells = length - extra
        scale = (max(cells, 0) / math.prod(image_size)) ** (1 / len(image_size))
        grid = tuple(round(side * scale) for side in image_size)
        if math.prod(grid) == cells > _MIN_PATCHES_PER_EXTRA_TOKEN * extra:
            return Tokens(grid, extra)
    return None


class GridReading(NamedTuple):
    """Result of `GridInference`.

    Args:
        grid: Spatial dimensions of an output; None if it has no spatial positions, or these cannot be known.
        to_grid: Turns the output into ``(n, C, *grid)``.
    """

    grid: Grid | None
    to_grid: ToGrid


NO_GRID = GridReading(None, channels_first)
"""Reading of an output without spatial positions."""


@dataclass
class GridInference:
    """Infers the grid of one output after the other, in order of execution; earlier grids explain later tokens.

    Features are read as ``(n, C, *s)``, and as ``(n, *s, C)`` only if that alone has the proportions of the image, or
    is an earlier grid, with sides divided or not; ``(n, L, C)`` and ``(L, n, C)`` are read as tokens if `find_tokens`
    finds their grid.

    The shapes of signals do not show which dimension is the sequence; there, `AxisTracker` follows it.

    Args:
        image_size: Spatial dimensions of the images.
        batch_size: Number of images.
        grids: Grids of earlier outputs.
        token_counts: Lengths of earlier sequences of tokens.

    >>> inference = GridInference((224, 224), 2)
    >>> [inference.read(shape).grid for shape in [(2, 512, 7, 7), (2, 7, 7, 768), (2, 50, 64), (2, 1000), (8, 49, 64)]]
    [(7, 7), (7, 7), (7, 7), None, None]
    """

    image_size: Grid
    batch_size: int
    grids: list[Grid] = field(default_factory=list)
    token_counts: set[int] = field(default_factory=set)

    def read_output(self, origin: TensorOrigin, tracker: AxisTracker) -> GridReading:
        """Infer the grid of an output from its shape and, for a signal, from its origin."""
        shape = tuple(origin.returned.shape)
        axes = tracker.read(origin)
        if len(self.image_size) > 1 or len(shape) != 3:
            return self.read(shape)
        if axes and axes.is_mixed and (shape[axes.sequence],) in (self.image_size, *self.grids):
            axes = tracker.restore_order()
        if axes is None or axes.is_mixed:
            return NO_GRID
        return self._read_sequence(shape, axes)

    def read(self, shape: tuple[int, ...]) -> GridReading:
        """Infer the grid of an output from its shape."""
        if len(shape) == 3 and len(self.image_size) > 1:
            return self._read_tokens(shape)
        if len(shape) != len(self.image_size) + 2 or shape[0] != self.batch_size:
            return NO_GRID
        reading = self._read_feature_map(shape)
        if reading.grid is None or self._is_attention(reading.grid):
            return NO_GRID
        self.grids.append(reading.grid)
        return reading

    def _read_feature_map(self, shape: tuple[int, ...]) -> GridReading:
        """Choose between ``(n, C, *s)``, ``(n, *s, C)`` and ``(n, windows, tokens, C)``, which has no grid."""
        first, last = shape[2:], shape[1:-1]
        if self._is_channels_last(first, last):
            return GridReading(last, channels_last)
        is_windows = self.grids and shape[1] * shape[2] == math.prod(self.grids[-1])
        if is_windows and not self._is_earlier_grid(first):
            return NO_GRID
        return GridReading(first, channels_first)

    def _is_channels_last(self, first: Grid, last: Grid) -> bool:
        """Return whether only ``last``, the grid with channels last, fits the image or an earlier grid."""
        if len(self.image_size) == 1:
            return False
        has_proportions = (
            _measure_distortion(last, self.image_size) < 0.05 and _measure_distortion(first, self.image_size) > 0.2
        )
        # Padded windows and clips change the proportions, so an earlier grid counts as well.
        return has_proportions or (self._is_earlier_grid(last) and not self._is_earlier_grid(first))

    def _is_attention(self, grid: Grid) -> bool:
        """Return whether a grid is one of tokens by heads, or of tokens by tokens, inside an attention."""
        return any(count in grid and math.prod(grid) > count for count in self.token_counts)

    def _is_earlier_grid(self, grid: Grid) -> bool:
        """Return whether a grid is an earlier one, with sides divided by 1, 2, 4 or 8."""

        def is_reduction(earlier: Grid) -> bool:
            sides = zip(grid, earlier, strict=True)
            return all(any(side in (e // r, math.ceil(e / r)) for r in (1, *_REDUCTIONS)) for side, e in sides)

        return any(map(is_reduction, self.grids))

    def _read_tokens(self, shape: tuple[int, ...]) -> GridReading:
        """Read tokens ``(n, L, C)`` or ``(L, n, C)`` of an image or a volume."""
        batch = next((axis for axis in (0, 1) if shape[axis] == self.batch_size), None)
        if batch is None:
            return NO_GRID
        length = shape[1 - batch]
        tokens = find_tokens(length, self.image_size, self.grids)
        if tokens is None:
            return NO_GRID
        self.token_counts.add(length)
        return GridReading(tokens.grid, Tokens(tokens.grid, tokens.extra, batch))

    def _read_sequence(self, shape: tuple[int, ...], axes: Axes) -> GridReading:
        """Read a sequence of a signal, whose axes are known."""
        length = shape[axes.sequence]
        if axes == CHANNELS_FIRST:
            self.grids.append((length,))
            return GridReading((length,), channels_first)
        tokens = find_tokens(length, self.image_size, [self.image_size, *self.grids])
        if tokens is None:
            if self.grids:
                return NO_GRID
            tokens = Tokens((length,))  # the first sequence of all: patches of the signal
        self.grids.append(tokens.grid)
        return GridReading(tokens.grid, replace(tokens, rows=axes.batch))


def _measure_distortion(grid: Grid, image_size: Grid) -> float:
    """Return how much the strides of a grid differ between dimensions, as the range of their logarithms."""
    strides = [math.log(size / side) for size, side in zip(image_size, grid, strict=True)]
    return max(strides) - min(strides)
