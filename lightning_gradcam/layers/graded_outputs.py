"""Outputs with an inferred layout, graded by how certain it is: known, inferred, or in need of proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from lightning_gradcam.capture.layouts import Frames, Grid, Tokens, channels_first
from lightning_gradcam.layers.maker_layouts import CHANNELS_FIRST_MODULES, SEQUENCE_MODULES
from lightning_gradcam.layers.spatial_grid import GridReading, is_proportionate


@dataclass
class GradedOutput:
    """An output whose layout was inferred.

    Args:
        maker: The module that returned it.
        call: The number of the module's call.
        value: The output.
        reading: Its inferred grid.
        is_certain: Whether the maker has a fixed layout, as a convolution has; then only exchanged axes are looked for.
        needs_proof: Whether it may be no map at all, as a matrix of attention, or tokens of another number than any
            earlier grid; then it is none unless changes show it.
        is_reached: Whether the score's gradient reaches it.
        is_proven: Whether autograd's graph shows the layout, see `PlaceTracer`.
        contrasts: Its changes, one tensor for each pattern of changed patches, see `patch_changes.compare_halves`.
    """

    maker: nn.Module
    call: int
    value: Tensor
    reading: GridReading
    is_certain: bool
    needs_proof: bool
    is_reached: bool
    is_proven: bool = False
    contrasts: list[Tensor] = field(default_factory=list)


def grade_readings(
    outputs: Sequence[tuple[nn.Module, int, Tensor, bool, bool]], readings: Sequence[GridReading], image_size: Grid
) -> list[GradedOutput]:
    """Tell the readings that are certain from those that were inferred, or need proof.

    Args:
        outputs: The maker of each output, the number of its call, the output, whether the gradient reaches it, and
            whether the graph shows its layout.
        readings: The inferred readings.
        image_size: Spatial size of the images.
    """
    sequences = [
        v for maker, _, v, *_ in outputs if v.ndim == 3 or (v.ndim > 3 and isinstance(maker, SEQUENCE_MODULES))
    ]
    lengths = {length for sequence in sequences if sequence.ndim == 3 for length in sequence.shape[:2]}
    certain_shapes: set[tuple[int, ...]] = set()
    known_grids: set[Grid | None] = set()
    graded = []
    for (maker, call, value, is_reached, is_proven), reading in zip(outputs, readings, strict=True):
        layout = reading.to_grid.layout if isinstance(reading.to_grid, Frames) else reading.to_grid
        is_certain = layout is channels_first and (
            isinstance(maker, CHANNELS_FIRST_MODULES)
            or value.ndim == 3  # a signal, whose axes `AxisTracker` followed
            or tuple(value.shape) in certain_shapes
            or not sequences
        )
        if isinstance(layout, Tokens):
            needs_proof = bool(known_grids) and reading.grid not in known_grids
        else:
            grid = reading.grid or ()
            is_stretched = bool(grid) and not is_proportionate(grid, image_size)
            needs_proof = layout is channels_first or is_stretched or not lengths.isdisjoint(grid)
        if is_certain:
            certain_shapes.add(tuple(value.shape))
        if is_certain or not needs_proof:
            known_grids.add(reading.grid)
        needs_proof = needs_proof and not is_certain
        graded.append(GradedOutput(maker, call, value, reading, is_certain, needs_proof, is_reached, is_proven))
    return graded
