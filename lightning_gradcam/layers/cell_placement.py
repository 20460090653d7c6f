"""Placement of a layer's cells in the image."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.utils.cell_centers import CellCenters

NEGLIGIBLE = 0.05
"""Distance in pixels up to which centers count as those of cells that cover the image evenly."""


def find_cell_centers(layer: Layer, records: Sequence[LayerRecord], size: Sequence[int]) -> CellCenters | None:
    """Find the receptive field centers of a layer's cells in its trace.

    Args:
        layer: The layer.
        records: The trace.
        size: Spatial dimensions of the images.

    Returns:
        The centers; None if the cells cover the image evenly, or the trace does not know their centers.
    """
    record = find_record(layer, records)
    if record is None or record.grid is None or record.centers is None or record.to_grid != layer.to_grid:
        return None
    return record.centers if record.centers.measure_shift(record.grid, size) > NEGLIGIBLE else None


def find_record(layer: Layer, records: Sequence[LayerRecord]) -> LayerRecord | None:
    """Find the record of a layer's call, also where it was recorded under the name of a module around the layer."""
    calls = [record for record in records if layer.name in (record.name, *record.inner)]
    same_call = [record for record in calls if record.call == layer.call or layer.name in record.inner]
    return next(reversed(same_call or calls), None)
