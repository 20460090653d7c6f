"""What users say of layers, and what that means in a traced model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import nn

from lightning_gradcam.capture.hooks import clean_name, named_layers
from lightning_gradcam.capture.layer import ATTENTION, PIXELS, Layer, LayerRecord, channels_first
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.layers.rules import RULES, LayerRule
from lightning_gradcam.utils.registry import unknown_name_error

Layers: TypeAlias = str | nn.Module | Layer | LayerRule | Sequence[str | nn.Module | Layer]
"""What users may say: a rule's name, a layer's name, a module, a `Layer`, a list of these, or a rule."""

_EXPECTED = "Expected a layer's name, a module, a Layer or a rule"


def choose_layers(layers: Layers, shapes: Sequence[LayerRecord], model: nn.Module) -> list[Layer]:
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


def list_non_layers(places: Iterable[str | None], shapes: Sequence[LayerRecord]) -> list[Layer]:
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
            raise ValueError(f"Expected a method's `location` to be {PIXELS!r} or {ATTENTION!r}, but got {place!r}.")
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
        raise unknown_name_error(RULES.noun, name, [*RULES, *named])
    return Layer(name, reason="given") if isinstance(layer, str) else layer


def _locate(layer: Layer, shapes: Sequence[LayerRecord]) -> Layer:
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
