"""Layer rules: each chooses layers from a trace, with the reason for its choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.layers.calls import Calls, choose_calls
from lightning_gradcam.layers.features import feature_maps, find_enclosing_output
from lightning_gradcam.utils.registry import Registry

LayerRule: TypeAlias = Callable[[Sequence[LayerRecord]], Sequence[Layer]]
"""Chooses layers from a trace, in order of execution; a rule never sees the model, so plain lists can test it."""

RULES = Registry[LayerRule]("layer or layer rule")
"""Rules by name; ``@RULES.register("name")`` adds one."""

ENOUGH_CELLS = 16
"""Smallest grid that ``"auto"`` chooses if there is one; a coarser grid hardly localizes the evidence."""

_REASON_TOKENS = "the last point at which patch tokens are on the way to the score"


@RULES.register("auto")
def auto(records: Sequence[LayerRecord]) -> list[Layer]:
    """Choose the last feature map with at least 16 cells, or with as many as the model has.

    >>> records = [LayerRecord(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((16, 8, 4, 2))]
    >>> auto(records)[0].name
    'layer2'
    """
    features = feature_maps(records)
    min_cells = min(ENOUGH_CELLS, max(r.cells for r in features))
    fine_features = [r for r in features if r.cells >= min_cells]
    choice = find_enclosing_output(fine_features[-1], features, records)
    last = find_enclosing_output(features[-1], features, records)
    reason = _REASON_TOKENS if choice.tokens else "the last feature map on the way to the score"
    if last.grid != choice.grid:
        enough = min_cells == ENOUGH_CELLS
        size = f"at least {ENOUGH_CELLS} cells" if enough else f"{min_cells} cells, the most of all layers"
        reason += f" with {size} (the last one of all, {last.name}, has {format_grid(last)})"
    return [to_layer(choice, reason, records, _describe_unread(records[records.index(choice) + 1 :]))]


def _describe_unread(later: Sequence[LayerRecord]) -> str:
    """Return an addition to the reason if later sequences reach the score, but have no known grid."""
    sequences = [r for r in later if r.reaches and r.grid is None and len(r.shape) > 2 and not r.is_output]
    if not sequences:
        return ""
    return (
        f"; {len(sequences)} later layers return sequences (the last one, {sequences[-1].name}, returns "
        f"{list(sequences[-1].shape)}), whose spatial positions are unknown: pass `layers=Layer(name, to_grid=...)`"
    )


@RULES.register("stages")
def stages(records: Sequence[LayerRecord]) -> list[Layer]:
    """Choose the last feature map of every resolution, the deepest first.

    >>> records = [LayerRecord(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((8, 8, 4, 2))]
    >>> [layer.name for layer in stages(records)]
    ['layer3', 'layer2', 'layer1']
    """
    features = feature_maps(records)
    last_by_grid = {r.grid: r for r in features}
    choices = [find_enclosing_output(r, features, records) for r in last_by_grid.values()]
    deepest_first = sorted(choices, key=records.index, reverse=True)
    return [to_layer(r, f"the last feature map of {format_grid(r)}", records) for r in deepest_first]


def to_layer(record: LayerRecord, reason: str, records: Sequence[LayerRecord] = (), note: str = "") -> Layer:
    """Return the layer of a record, with the reason for its choice.

    Args:
        record: The record.
        reason: The reason.
        records: The trace; calls of the module that repeat the step of the record's call are summed.
        note: An addition to the reason.
    """
    calls = choose_calls(record.name, records)
    if calls is None or calls.num_calls == 1:
        return Layer(record.name, record.call, reason + note, record.to_grid)
    if calls.record.key != record.key:  # another call than the one that would be explained for the module's name
        calls = Calls(record, (record.call % calls.num_calls,), calls.num_calls)
    summed = calls.indices if len(calls.indices) > 1 else ()
    return Layer(record.name, -1 if summed else record.call, reason + calls.reason + note, record.to_grid, summed)


def format_grid(record: LayerRecord) -> str:
    """Return the grid of a record as text, such as ``7x7``."""
    return "x".join(map(str, record.grid or ()))
