"""Spatial grid of a module's output: feature maps with channels first or last, and sequences of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import nn

from lightning_gradcam.capture.layouts import Frames, Grid, ToGrid, Tokens, channels_first, channels_last
from lightning_gradcam.layers.axes import CHANNELS_FIRST, MAX_EXTRA_TOKENS, Axes
from lightning_gradcam.layers.axis_tracking import AxisTracker
from lightning_gradcam.layers.maker_layouts import CHANNELS_FIRST_MODULES, CHANNELS_LAST_MODULES
from lightning_gradcam.layers.tensor_history import TensorOrigin

_REDUCTIONS = (2, 4, 8)
_PROPORTIONATE = 0.5  # largest distortion of a grid that needs no proof, as a logarithm: a factor of 1.6
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
    grid = next(list_token_grids(length, image_size), None)
    return None if grid is None else Tokens(grid, length - math.prod(grid))


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


def list_token_grids(length: int, image_size: Grid) -> Iterator[Grid]:
    """List the grids of ``length`` tokens with the proportions of the image, those with the fewest extra tokens first.

    Patches of a clip or a volume may be shorter in the first dimension, and as long as one frame or slice.

    >>> list(list_token_grids(197, (224, 224))), next(list_token_grids(1568, (8, 224, 224)))
    ([(14, 14)], (8, 14, 14))
    """
    for extra in range(MAX_EXTRA_TOKENS + 1):
        cells = length - extra
        if cells > _MIN_PATCHES_PER_EXTRA_TOKEN * extra:
            yield from dict.fromkeys(grid for grid in _list_proportional(cells, image_size) if math.prod(grid) == cells)


def _list_proportional(cells: int, image_size: Grid) -> Iterator[Grid]:
    """List grids of about as many cells as given, with the proportions of the image, or of its slices."""
    scale = (cells / math.prod(image_size)) ** (1 / len(image_size))
    yield tuple(round(side * scale) for side in image_size)
    if len(image_size) == 3:
        for depth in dict.fromkeys(math.ceil(image_size[0] / r) for r in (1, *_REDUCTIONS)):
            if cells % depth == 0:
                slices = _list_proportional(cells // depth, image_size[1:])
                yield from ((depth, *grid) for grid in slices if math.prod(grid) > 1)


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
    _frames: GridInference | None = None

    def read_output(self, origin: TensorOrigin, tracker: AxisTracker) -> GridReading:
        """Infer the grid of an output from its shape and, for a signal, from its origin."""
        shape = tuple(origin.returned.shape)
        axes = tracker.read(origin)
        if len(self.image_size) > 1 or len(shape) != 3:
            return self.read(shape, origin.maker)
        if axes and axes.is_mixed and (shape[axes.sequence],) in (self.image_size, *self.grids):
            axes = tracker.restore_order()
        if axes is None or axes.is_mixed:
            return NO_GRID
        return self._read_sequence(shape, axes)

    def read(self, shape: tuple[int, ...], maker: nn.Module | None = None) -> GridReading:
        """Infer the grid of an output from its shape, and from the module that made it, if it is known."""
        if self._holds_frames(shape):
            return self._read_frames(shape, maker)
        if len(shape) == 3 and len(self.image_size) > 1:
            return self._read_tokens(shape)
        if len(shape) != len(self.image_size) + 2 or shape[0] != self.batch_size:
            return NO_GRID
        reading = self._read_feature_map(shape, maker)
        if reading.grid is not None and self._is_reliable(reading.grid, maker):
            self.grids.append(reading.grid)
        return reading

    def _is_reliable(self, grid: Grid, maker: nn.Module | None) -> bool:
        """Return whether later tokens can be found by a grid; a side that is a number of tokens may be attention's."""
        if self._is_attention(grid):
            return False
        return maker is None or isinstance(maker, CHANNELS_FIRST_MODULES) or is_proportionate(grid, self.image_size)

    def _holds_frames(self, shape: tuple[int, ...]) -> bool:
        """Return whether the rows of an output are the frames of a clip, or the slices of a volume."""
        if len(self.image_size) != 3 or self.image_size[0] == 1:
            return False
        return len(shape) in (3, 4) and shape[0] == self.batch_size * self.image_size[0]

    def _read_frames(self, shape: tuple[int, ...], maker: nn.Module | None) -> GridReading:
        """Read ``(n * frames, ...)``: the grid of a frame, once for every frame."""
        frames = self.image_size[0]
        if self._frames is None:
            self._frames = GridInference(self.image_size[1:], self.batch_size * frames)
        grid, to_grid = self._frames.read(shape, maker)
        if grid is None:
            return NO_GRID
        self.grids.append((frames, *grid))
        return GridReading((frames, *grid), Frames(frames, to_grid))

    def _read_feature_map(self, shape: tuple[int, ...], maker: nn.Module | None) -> GridReading:
        """Choose between ``(n, C, *s)``, ``(n, *s, C)`` and ``(n, windows, tokens, C)``, which has no grid."""
        first, last = shape[2:], shape[1:-1]
        if self._is_channels_last(first, last):
            return GridReading(last, channels_last)
        may_be_windows = bool(self.grids) and not isinstance(maker, CHANNELS_FIRST_MODULES)
        is_windows = may_be_windows and shape[1] * shape[2] == math.prod(self.grids[-1])
        if is_windows and not self._is_earlier_grid(first):
            return NO_GRID
        if isinstance(maker, CHANNELS_LAST_MODULES) and not self._is_earlier_grid(first):
            return GridReading(last, channels_last)
        return GridReading(first, channels_first)

    def _is_channels_last(self, first: Grid, last: Grid) -> bool:
        """Return whether only ``last``, the grid with channels last, fits the image or an earlier grid."""
        if len(self.image_size) == 1:
            return False
        has_proportions = (
            measure_distortion(last, self.image_size) < 0.05 and measure_distortion(first, self.image_size) > 0.2
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


def is_proportionate(grid: Grid, image_size: Grid) -> bool:
    """Return whether a grid has about the proportions of the image, or, of a volume, of its slices.

    >>> is_proportionate((7, 9), (224, 320)), is_proportionate((8, 7, 7), (8, 56, 56)), is_proportionate((4, 9), (8, 8))
    (True, True, False)
    """
    return measure_distortion(grid[-2:], image_size[-2:]) < _PROPORTIONATE


def measure_distortion(grid: Grid, image_size: Grid) -> float:
    """Return how much the strides of a grid differ between dimensions, as the range of their logarithms."""
    strides = [math.log(size / side) for size, side in zip(image_size, grid, strict=True)]
    return max(strides) - min(strides)
