"""Rules over the traced shapes, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from lightning_gradcam.capture.layer import Layer, LayerRecord, is_vanishing
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.utils.registry import Registry

LayerRule: TypeAlias = Callable[[Sequence[LayerRecord]], Sequence[Layer]]
"""Chooses from a trace, in order of execution; never sees the model, so plain lists can test it."""

RULES = Registry[LayerRule]("layer or layer rule")
"""Rules by name; ``@RULES.register("name")`` adds one."""

ENOUGH_CELLS = 16
"""A coarser grid says little about where the evidence lies."""

_NOT_FEATURES = re.compile(
    r"(pool(ing)?|(un)?flatten|unfold|permute|rearrange|dropout|droppath|identity)(\d?d)?$", re.IGNORECASE
)


def feature_maps(shapes: Sequence[LayerRecord]) -> list[LayerRecord]:
    """The spatial outputs on the way to the score that are not a pooling, flattening or dropout, nor the answer itself.

    Raises:
        NotExplainableError: There are none.
    """
    spatial = [s for s in shapes if s.cells > 1]
    dark = is_vanishing(shapes)
    reached = [s for s in spatial if s.reaches and (s.touched or dark)]
    features = [s for s in reached if not _NOT_FEATURES.search(s.kind) and not s.answers]
    if not features:
        found, remedy = _why_none(shapes, len(spatial), len(reached))
        listed = ", ".join(f"{s.name} {list(s.shape)}" for s in shapes[-5:]) or "none"
        raise NotExplainableError(f"No layer to explain: {found}. The last outputs were: {listed}. {remedy}")
    return features


def _why_none(shapes: Sequence[LayerRecord], spatial: int, reached: int) -> tuple[str, str]:
    """What was found instead of a feature map, and what to do."""
    if not shapes:
        return "no module returns a tensor of the images", (
            "What functions do, or the graph of an exported model, has no layers to look at: give the map a module of "
            "its own in `forward`, or pass the model that was exported."
        )
    if not spatial:
        return "no module returns a spatial output", (
            "Where tokens or vectors do have places in the image, pass `layers=Layer(name, to_grid=...)`, which turns "
            "them into (n, C, *grid)."
        )
    if not reached:
        return f"no gradient of the score reaches the {spatial} spatial outputs", (
            "A detach, a no_grad behind them, an inference_mode or a step outside of PyTorch cuts it off: take it out "
            "of `forward`, or pass a `target=` that hangs on them."
        )
    found = "the only spatial outputs are poolings, or the scores of pixels"
    return found, "Name one in `layers=` to have it explained all the same."


_REASON_TOKENS = "the last place where patch tokens are on the way to the score"


@RULES.register("auto")
def auto(shapes: Sequence[LayerRecord]) -> list[Layer]:
    """The last feature map with at least 16 cells, or with as many as the model has.

    >>> shapes = [LayerRecord(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((16, 8, 4, 2))]
    >>> auto(shapes)[0].name
    'layer2'
    """
    features = feature_maps(shapes)
    enough = min(ENOUGH_CELLS, max(s.cells for s in features))
    chosen = find_enclosing_output([s for s in features if s.cells >= enough][-1], features, shapes)
    last = find_enclosing_output(features[-1], features, shapes)
    reason = _REASON_TOKENS if chosen.tokens else "the last feature map on the way to the score"
    if last.grid != chosen.grid:
        count = f"at least {ENOUGH_CELLS} cells" if enough == ENOUGH_CELLS else f"{enough} cells, the most there are"
        reason += f" with {count} (the last one of all, {last.name}, has {_grid(last)})"
    tokens = [s for s in shapes[shapes.index(chosen) + 1 :] if s.reaches and s.grid is None and len(s.shape) > 2]
    if tokens:
        reason += (
            f"; behind it {len(tokens)} layers return sequences, the last {tokens[-1].name} {list(tokens[-1].shape)}, "
            "which this rule does not read: `layers=Layer(name, to_grid=...)` does"
        )
    return [to_layer(chosen, reason)]


def find_enclosing_output(
    found: LayerRecord, features: Sequence[LayerRecord], shapes: Sequence[LayerRecord]
) -> LayerRecord:
    """The whole of which a feature map is a branch, on the same grid.

    A map inside a block whose own output is not used as a map of that grid (coarser, or its patch tokens miss the
    score) is one branch's, queries, keys or a widened map say: what the block was given has all of it; but tokens that
    a whole block of a stack returns are no branch of what stands around the stack. Where the next layer only normalises
    tokens, as the last attention's input is, that is the last place of all.
    """
    same = [s for s in features if s.grid == found.grid]
    behind = [
        s
        for s in shapes[shapes.index(found) + 1 :]
        # A pooling with layers inside, of attention say, is a block.
        if not _NOT_FEATURES.search(s.kind) or found.name.startswith(f"{(*s.inner, s.name)[0]}.")
        if not s.answers
    ]
    # A projection that goes on as a vector (attention pooling) is a branch as well.
    blocks = [name for s in behind if s.cells or found.kind == "Linear" for name in (s.name, *s.inner)]
    around = [name for name in blocks if found.name.startswith(f"{name}.")]
    if around and not (found.tokens and _in_stack(found, shapes)):
        block = max(around, key=len)
        before = [s for s in same[: same.index(found)] if not f"{s.name}.".startswith(f"{block}.")]
        found = before[-1] if before else found
    following = shapes[shapes.index(found) + 1 :]
    if following and following[0] in same and following[0].tokens and "Norm" in following[0].kind:
        # What made the patches may be a convolution: its map is no sequence yet.
        found = following[0] if not found.tokens or following[0].shape == found.shape else found
    return found


def _in_stack(found: LayerRecord, shapes: Sequence[LayerRecord]) -> bool:
    """Whether it is the output of a block that another follows: one numbered next, with parts of the same names."""
    stack, number = re.fullmatch(r"(.*?)(\d*)", found.name).groups()  # type: ignore[union-attr]  # matches all
    names = [name for s in shapes for name in (s.name, *s.inner)]

    def parts(i: int) -> set[str]:
        return {name.removeprefix(f"{stack}{i}.") for name in names if name.startswith(f"{stack}{i}.")}

    return bool(number and parts(int(number))) and parts(int(number)) == parts(int(number) + 1)


@RULES.register("stages")
def stages(shapes: Sequence[LayerRecord]) -> list[Layer]:
    """The last feature map of every resolution, the deepest first.

    >>> shapes = [LayerRecord(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((8, 8, 4, 2))]
    >>> [layer.name for layer in stages(shapes)]
    ['layer3', 'layer2', 'layer1']
    """
    features = feature_maps(shapes)
    last = {s.grid: s for s in features}
    wholes = [find_enclosing_output(s, features, shapes) for s in last.values()]
    deepest_first = sorted(wholes, key=shapes.index, reverse=True)
    return [to_layer(s, f"the last feature map of {_grid(s)}") for s in deepest_first]


def to_layer(shape: LayerRecord, reason: str) -> Layer:
    """The place that a rule chose."""
    return Layer(shape.name, shape.call, reason, shape.to_grid)


def _grid(shape: LayerRecord) -> str:
    return "x".join(map(str, shape.grid or ()))
