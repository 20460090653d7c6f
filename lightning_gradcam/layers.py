"""Where in a model to look: rules over the traced shapes, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import nn

from lightning_gradcam.capture import clean_name, named_layers
from lightning_gradcam.explanation import NotExplainableError
from lightning_gradcam.layout import channels_first
from lightning_gradcam.registry import Registry, unknown
from lightning_gradcam.trace import ATTENTION, PIXELS, Layer, LayerShape, vanishing

LayerRule: TypeAlias = Callable[[Sequence[LayerShape]], Sequence[Layer]]
"""Chooses from a trace, in order of execution; never sees the model, so plain lists can test it."""

Layers: TypeAlias = str | nn.Module | Layer | LayerRule | Sequence[str | nn.Module | Layer]
"""What users may say: a rule's name, a layer's name, a module, a `Layer`, a list of these, or a rule."""

RULES = Registry[LayerRule]("layer or layer rule")
"""Rules by name; ``@RULES.register("name")`` adds one."""

ENOUGH_CELLS = 16
"""A coarser grid says little about where the evidence lies."""

_EXPECTED = "Expected a layer's name, a module, a Layer or a rule"

_NOT_FEATURES = re.compile(
    r"(pool(ing)?|(un)?flatten|unfold|permute|rearrange|dropout|droppath|identity)(\d?d)?$", re.IGNORECASE
)


def feature_maps(shapes: Sequence[LayerShape]) -> list[LayerShape]:
    """The spatial outputs on the way to the score that are not a pooling, flattening or dropout, nor the answer itself.

    Raises:
        NotExplainableError: There are none.
    """
    spatial = [s for s in shapes if s.cells > 1]
    dark = vanishing(shapes)
    reached = [s for s in spatial if s.reaches and (s.touched or dark)]
    features = [s for s in reached if not _NOT_FEATURES.search(s.kind) and not s.answers]
    if not features:
        found, remedy = _why_none(shapes, len(spatial), len(reached))
        listed = ", ".join(f"{s.name} {list(s.shape)}" for s in shapes[-5:]) or "none"
        raise NotExplainableError(f"No layer to explain: {found}. The last outputs were: {listed}. {remedy}")
    return features


def _why_none(shapes: Sequence[LayerShape], spatial: int, reached: int) -> tuple[str, str]:
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
def auto(shapes: Sequence[LayerShape]) -> list[Layer]:
    """The last feature map with at least 16 cells, or with as many as the model has.

    >>> shapes = [LayerShape(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((16, 8, 4, 2))]
    >>> auto(shapes)[0].name
    'layer2'
    """
    features = feature_maps(shapes)
    enough = min(ENOUGH_CELLS, max(s.cells for s in features))
    chosen = whole([s for s in features if s.cells >= enough][-1], features, shapes)
    last = whole(features[-1], features, shapes)
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
    return [as_layer(chosen, reason)]


def whole(found: LayerShape, features: Sequence[LayerShape], shapes: Sequence[LayerShape]) -> LayerShape:
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


def _in_stack(found: LayerShape, shapes: Sequence[LayerShape]) -> bool:
    """Whether it is the output of a block that another follows: one numbered next, with parts of the same names."""
    stack, number = re.fullmatch(r"(.*?)(\d*)", found.name).groups()  # type: ignore[union-attr]  # matches all
    names = [name for s in shapes for name in (s.name, *s.inner)]

    def parts(i: int) -> set[str]:
        return {name.removeprefix(f"{stack}{i}.") for name in names if name.startswith(f"{stack}{i}.")}

    return bool(number and parts(int(number))) and parts(int(number)) == parts(int(number) + 1)


@RULES.register("stages")
def stages(shapes: Sequence[LayerShape]) -> list[Layer]:
    """The last feature map of every resolution, the deepest first.

    >>> shapes = [LayerShape(f"layer{i}", "ReLU", (1, 8, s, s), (s, s)) for i, s in enumerate((8, 8, 4, 2))]
    >>> [layer.name for layer in stages(shapes)]
    ['layer3', 'layer2', 'layer1']
    """
    features = feature_maps(shapes)
    last = {s.grid: s for s in features}
    wholes = [whole(s, features, shapes) for s in last.values()]
    deepest_first = sorted(wholes, key=shapes.index, reverse=True)
    return [as_layer(s, f"the last feature map of {_grid(s)}") for s in deepest_first]


def choose_layers(layers: Layers, shapes: Sequence[LayerShape], model: nn.Module) -> list[Layer]:
    """Apply the user's choice to a trace.

    Raises:
        ValueError: A name is unknown; the closest ones are offered.
        TypeError: The choice is of no known kind.
        NotExplainableError: There is no such place in this model.
    """
    named = named_layers(model)
    if isinstance(layers, str) and layers in RULES:
        return list(RULES[layers](shapes))
    if callable(layers) and not isinstance(layers, (nn.Module, Layer)):
        chosen = list(layers(shapes))
        if not chosen:
            raise NotExplainableError(f"The layer rule {layers!r} chose no layer.")
        return chosen
    wanted = _listed(layers)
    if not wanted:
        raise ValueError("Expected at least one layer, but got an empty list.")
    return [_locate(check_layer(item, named), shapes) for item in wanted]


def _listed(layers: str | nn.Module | Layer | Sequence[str | nn.Module | Layer]) -> list[str | nn.Module | Layer]:
    if isinstance(layers, (str, nn.Module, Layer)):
        return [layers]
    if not isinstance(layers, Iterable):
        raise TypeError(f"{_EXPECTED}, or a list of these, but got {layers!r}.")
    return [layer for layer in layers if not (isinstance(layer, Layer) and not layer.is_module)]


def elsewhere(places: Iterable[str | None], shapes: Sequence[LayerShape]) -> list[Layer]:
    """The places of evidence that are no layers, each once.

    Raises:
        NotExplainableError: All attention is asked for, and the trace has seen no tokens.
    """
    found: dict[str, Layer] = {}
    for place in places:
        if place == PIXELS:
            found[place] = Layer(place, reason="the images themselves")
        elif place == ATTENTION:
            tokens = [s for s in shapes if s.tokens]
            if not tokens:
                raise NotExplainableError(
                    "Expected a model of tokens, whose attention could be followed, but no layer of it returns any. "
                    "Choose a method that is read at layers, 'gradcam' say."
                )
            found[place] = Layer(place, reason="all layers of attention together", to_grid=tokens[-1].to_grid)
        elif place is not None:
            raise ValueError(f"Expected a method's `place` to be {PIXELS!r} or {ATTENTION!r}, but got {place!r}.")
    return list(found.values())


def check_layers(layers: Layers, model: nn.Module) -> None:
    """Raise as `choose_layers` does where a name is wrong, which needs no trace."""
    if isinstance(layers, str) and layers in RULES:
        return
    if callable(layers) and not isinstance(layers, (nn.Module, Layer)):
        return
    named = named_layers(model)
    for item in _listed(layers):
        check_layer(item, named)


def check_layer(layer: str | nn.Module | Layer, named: Mapping[str, nn.Module]) -> Layer:
    """The place that a name, a module or a `Layer` means."""
    if isinstance(layer, nn.Module):
        names = [name for name, module in named.items() if module is layer]
        if not names:
            raise ValueError(f"Expected a module inside the model, but {type(layer).__name__} is not one of them.")
        return Layer(names[0], reason="given")
    if not isinstance(layer, (str, Layer)):
        raise TypeError(f"{_EXPECTED}, but got {layer!r}.")
    name = clean_name(layer if isinstance(layer, str) else layer.name)
    if name not in named:
        raise unknown(RULES.noun, name, [*RULES, *named])
    return Layer(name, reason="given") if isinstance(layer, str) else layer


def _locate(layer: Layer, shapes: Sequence[LayerShape]) -> Layer:
    """Give a layer named by the user the layout that the trace found, where it says none itself."""
    if layer.to_grid is not channels_first:
        return layer
    named = [s for s in shapes if layer.name in (s.name, *s.inner)]
    at = [s for s in named if s.call == layer.call or layer.name in s.inner]
    if layer.call > max((s.call for s in named), default=-1):
        at = at or named[-1:]  # the last call is not numbered
    if not at:
        return layer  # it did not run; the capture says so
    if at[-1].grid is None:
        raise ValueError(
            f"Expected a layer with a grid of places, but {layer.name!r} returns {list(at[-1].shape)}. Choose another, "
            "or pass `Layer(name, to_grid=...)` with a function that turns this into (n, C, *grid)."
        )
    return replace(layer, to_grid=at[-1].to_grid)


def as_layer(shape: LayerShape, reason: str) -> Layer:
    """The place that a rule chose."""
    return Layer(shape.name, shape.call, reason, shape.to_grid)


def _grid(shape: LayerShape) -> str:
    return "x".join(map(str, shape.grid or ()))
