"""Ranked list of the layers that can be explained, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_gradcam.capture.forward import CheckedForward, default_forward
from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.layers import ENOUGH_CELLS, auto, feature_maps, stages, to_layer
from lightning_gradcam.layers.checks import add_model_hints, check_model
from lightning_gradcam.layers.trace_model import trace_model
from lightning_gradcam.probe.image_loading import as_probe
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import coerce_target

MAX_EARLIER_CANDIDATES = 3
"""Number of candidates listed on the grid of the first, before it."""


@dataclass(frozen=True)
class Candidate:
    """A layer that can be explained, with its rank.

    Args:
        rank: Position in the ranking; 1 is the layer that ``"auto"`` uses.
        layer: The layer, as `explain` takes it in ``layers``.
        grid: Size of its map.
        reach: Fraction of its positions that the score's gradient reaches.
        kind: Class name of the module that computed the map.
        reason: Reason for its rank.
    """

    rank: int
    layer: Layer
    grid: tuple[int, ...]
    reach: float
    kind: str
    reason: str


class Candidates(tuple[Candidate, ...]):
    """Candidates by rank; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        header = ("", "layer", "map", "reach", "made by", "reason")
        rows = [
            (str(c.rank), c.layer.key, "x".join(map(str, c.grid)), f"{c.reach:.0%}", c.kind, c.reason) for c in self
        ]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, *rows))


def rank_candidates(records: Sequence[LayerRecord]) -> Candidates:
    """Rank layers: the choice of `auto`, earlier ones on its grid, finer grids, and then grids that are too coarse.

    >>> records = [LayerRecord(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((8, 4, 4))]
    >>> print(rank_candidates(records))
       layer   map  reach  made by  reason
    1  layer2  4x4  100%   ReLU     the last feature map on the way to the score
    2  layer1  4x4  100%   ReLU     earlier on the same grid
    3  layer0  8x8  100%   ReLU     the last feature map of 8x8
    """
    features = feature_maps(records)
    record_by_call = {r.key: r for r in reversed(features)}
    [first] = auto(records)
    choice = record_by_call[first.name, first.call]
    earlier = [to_layer(r, "earlier on the same grid", records) for r in _list_earlier(choice, features)]
    layers_and_records = [(layer, record_by_call[layer.name, layer.call]) for layer in stages(records)]
    other_grids = [(layer, record) for layer, record in layers_and_records if record.grid != choice.grid]
    other_grids.sort(key=lambda pair: pair[1].cells < ENOUGH_CELLS)  # stable: the deepest first
    ranking = [first, *earlier, *(layer for layer, _ in other_grids)]
    return Candidates(
        _to_candidate(rank, layer, record_by_call[layer.name, layer.call]) for rank, layer in enumerate(ranking, 1)
    )


def _list_earlier(choice: LayerRecord, features: Sequence[LayerRecord]) -> list[LayerRecord]:
    """List the last few feature maps on the grid of the choice, before it and not inside another one, latest first."""
    same_grid = [r for r in features[: features.index(choice)] if r.grid == choice.grid]
    outermost = [r for r in same_grid if not any(r.name.startswith(f"{o.name}.") for o in (*same_grid, choice))]
    return outermost[: -MAX_EARLIER_CANDIDATES - 1 : -1]


def _to_candidate(rank: int, layer: Layer, record: LayerRecord) -> Candidate:
    return Candidate(rank, layer, record.grid or (), record.touched, record.kind, layer.reason)


def recommended_layers(
    model: nn.Module,
    images: Tensor | Probe,
    *,
    target: str | int | Sequence[int] | Tensor | Target = "predicted",
    forward: Forward | None = None,
) -> Candidates:
    """List the layers where a model can be explained, the best first; arguments and errors as for `explain`.

    Returns:
        `Candidate`s by rank, each with the size of its map, the fraction of it that the score's gradient reaches, and
        the reason; the first is the layer that ``layers="auto"`` uses. They print as a table.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))
        >>> print(recommended_layers(model, torch.rand(2, 1, 8, 8)))
           layer  map  reach  made by  reason
        1  1      6x6  100%   Tanh     the last feature map on the way to the score
        2  0      6x6  100%   Conv2d   earlier on the same grid
    """
    check_model(model)
    checked_forward = CheckedForward(forward or default_forward(model))
    with add_model_hints(model):
        records = trace_model(
            model, as_probe(images, model).read_axes(model), checked_forward, coerce_target(target)
        ).records
        return rank_candidates(records)
