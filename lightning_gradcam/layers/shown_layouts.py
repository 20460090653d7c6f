"""Layouts that the changes of an output show: the inferred one, or another that fits better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations

from lightning_gradcam.capture.layouts import Frames, Grid, ToGrid, Tokens, Turned
from lightning_gradcam.layers.graded_outputs import GradedOutput
from lightning_gradcam.layers.patch_changes import Pattern, measure_agreement
from lightning_gradcam.layers.spatial_grid import GridReading, list_token_grids

_PERFECT, _CLEAR, _LEAD = 0.95, 0.5, 0.25
"""Correlations that leave no room for another layout, and that show one; the lead of a better layout."""

_SIGNIFICANT, _EXPECTED = 4.0, 2.4
"""Standard deviations of a correlation that is not due to chance, and of one that agrees with what is expected."""


def find_shown_layout(output: GradedOutput, patterns: Sequence[Pattern], image_size: Grid) -> GridReading | None:
    """Return the layout in which an output's changes clearly follow the patterns, the inferred one first; else None."""
    if len(output.contrasts) < len(patterns):
        return None  # another shape, or not called, with other images
    inferred = measure_agreement(output.contrasts, patterns, output.reading.to_grid)
    is_clear = inferred.z >= (_SIGNIFICANT if output.needs_proof else _EXPECTED)
    is_clear = is_clear and inferred.correlation >= _CLEAR
    if inferred.correlation < _PERFECT:
        alternatives = [
            (measure_agreement(output.contrasts, patterns, layout), layout)
            for layout in list_other_layouts(output, image_size)
        ]
        best, layout = max(
            alternatives, key=lambda pair: pair[0].correlation, default=(inferred, output.reading.to_grid)
        )
        if best.correlation >= max(_CLEAR, inferred.correlation + _LEAD) and best.z >= _SIGNIFICANT:
            return GridReading(tuple(layout(output.contrasts[0]).shape[2:]), layout)
    return output.reading if is_clear or inferred.z >= _SIGNIFICANT else None


def list_other_layouts(output: GradedOutput, image_size: Grid) -> Iterator[ToGrid]:
    """List the layouts that an output may have instead: exchanged axes, other grids, extra tokens at the end."""
    layout = output.reading.to_grid
    if isinstance(layout, Frames):
        alternatives = _list_alternatives(layout.layout, output.value.shape, image_size[1:])
        yield from (replace(layout, layout=of_frame) for of_frame in alternatives)
    else:
        yield from _list_alternatives(layout, output.value.shape, image_size)


def _list_alternatives(layout: ToGrid, shape: Sequence[int], image_size: Grid) -> Iterator[ToGrid]:
    if isinstance(layout, Tokens):
        yield from _list_token_layouts(layout, shape[1 - layout.rows], image_size)
        return
    axes = tuple(range(len(image_size)))
    yield from (Turned(layout, order) for order in permutations(axes) if order != axes)


def _list_token_layouts(inferred: Tokens, length: int, image_size: Grid) -> Iterator[Tokens]:
    grids = dict.fromkeys([inferred.grid, *list_token_grids(length, image_size)])
    for grid in grids:
        extra = length - math.prod(grid)
        for sides in dict.fromkeys(permutations(grid)):
            for order in permutations(range(len(sides))):
                for suffix in range(extra + 1):
                    tokens = Tokens(sides, extra, inferred.rows, suffix, () if order == tuple(sorted(order)) else order)
                    if tokens != inferred:
                        yield tokens
