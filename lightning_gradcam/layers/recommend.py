"""The places that can be explained, ranked, with what speaks for each."""

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


@dataclass(frozen=True)
class Candidate:
    """A place that can be explained, and what speaks for it.

    Args:
        rank: 1 is what ``"auto"`` uses.
        layer: What `explain` takes as ``layers``.
        grid: The size of its map.
        reach: The share of its places that the score's gradient reaches.
        kind: Class name of the module that made the map.
        reason: Why it stands here.
    """

    rank: int
    layer: Layer
    grid: tuple[int, ...]
    reach: float
    kind: str
    reason: str


class Candidates(tuple[Candidate, ...]):
    """Candidates by rank; printed, a table."""

    __slots__ = ()

    def __str__(self) -> str:
        head = ("", "layer", "map", "reach", "made by", "reason")
        rows = [
            (str(c.rank), c.layer.key, "x".join(map(str, c.grid)), f"{c.reach:.0%}", c.kind, c.reason) for c in self
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))


EARLIER = 3
"""So many candidates on the grid of the first."""


def rank_candidates(shapes: Sequence[LayerRecord]) -> Candidates:
    """Rank places: what `auto` chooses, the ones before it on its grid, finer grids, and grids that are too coarse.

    >>> shapes = [LayerRecord(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((8, 4, 4))]
    >>> print(rank_candidates(shapes))
       layer   map  reach  made by  reason
    1  layer2  4x4  100%   ReLU     the last feature map on the way to the score
    2  layer1  4x4  100%   ReLU     earlier on the same grid
    3  layer0  8x8  100%   ReLU     the last feature map of 8x8
    """
    features = feature_maps(shapes)
    [first] = auto(shapes)
    at = {(s.name, s.call): s for s in reversed(features)}
    chosen = at[first.name, first.call]
    same = [s for s in features[: features.index(chosen)] if s.grid == chosen.grid]
    outer = [s for s in same if not any(s.name.startswith(f"{o.name}.") for o in (*same, chosen))]
    earlier = [to_layer(s, "earlier on the same grid") for s in outer[: -EARLIER - 1 : -1]]
    others = [layer for layer in stages(shapes) if at[layer.name, layer.call].grid != chosen.grid]
    others.sort(key=lambda layer: at[layer.name, layer.call].cells < ENOUGH_CELLS)  # stable: the deepest first
    ranked = enumerate([first, *earlier, *others], 1)
    found = ((rank, layer, at[layer.name, layer.call]) for rank, layer in ranked)
    return Candidates(Candidate(rank, y, s.grid or (), s.touched, s.kind, y.reason) for rank, y, s in found)


def recommended_layers(
    model: nn.Module,
    images: Tensor | Probe,
    *,
    target: str | int | Sequence[int] | Tensor | Target = "predicted",
    forward: Forward | None = None,
) -> Candidates:
    """List the places where a model can be explained, the best first; arguments and errors as for `explain`.

    Returns:
        `Candidate`s by rank, each with the size of its map, the share of it that the score's gradient reaches, and the
        reason; the first is what ``layers="auto"`` uses. Printed, they are a table.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))
        >>> print(recommended_layers(model, torch.rand(2, 1, 8, 8)))
           layer  map  reach  made by  reason
        1  1      6x6  100%   Tanh     the last feature map on the way to the score
        2  0      6x6  100%   Conv2d   earlier on the same grid
    """
    check_model(model)
    call = CheckedForward(forward or default_forward(model))
    with add_model_hints(model):
        shapes, _, _ = trace_model(model, as_probe(images, model), call, coerce_target(target))
        return rank_candidates(shapes)
