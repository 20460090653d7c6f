"""Maps without a dimension of channels ``(n, *s)``, such as depth, which look like sequences ``(n, L, C)``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_gradcam.capture.layer import IMAGES
from lightning_gradcam.capture.layouts import Tokens
from lightning_gradcam.layers.maker_layouts import SEQUENCE_MODULES
from lightning_gradcam.layers.spatial_grid import NO_GRID, GridReading


def reject_flat_maps(
    outputs: Sequence[tuple[nn.Module, Tensor]], readings: Sequence[GridReading], reads: Sequence[frozenset[int]]
) -> list[GridReading]:
    """Read no tokens from outputs ``(n, *s)`` that are computed from maps on the grid ``s``, and from nothing else.

    Args:
        outputs: The maker of each output, and the output.
        readings: The inferred readings.
        reads: Indices of the outputs from which each was computed.
    """
    flat: set[int] = set()
    result = list(readings)
    for index, ((maker, value), sources) in enumerate(zip(outputs, reads, strict=True)):
        size = tuple(value.shape[1:])
        is_sequence = isinstance(readings[index].to_grid, Tokens) and readings[index].grid is not None
        if not is_sequence or isinstance(maker, SEQUENCE_MODULES) or not sources or IMAGES in sources:
            continue
        maps = [outputs[s][1].ndim == 2 + len(size) and readings[s].grid == size for s in sources - flat]
        if all(maps) and all(tuple(outputs[s][1].shape[1:]) == size for s in sources & flat):
            flat.add(index)
            result[index] = NO_GRID
    return result
