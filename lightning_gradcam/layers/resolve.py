"""Resolution of the ``layers`` argument into layers of a traced model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeGuard

from torch import nn

from lightning_gradcam.capture.hooks import clean_name, named_layers
from lightning_gradcam.capture.layer import ATTENTION, PIXELS, Layer, LayerRecord
from lightning_gradcam.capture.layouts import Tokens, channels_first
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.layers.rules import RULES, LayerRule
from lightning_gradcam.utils.registry import unknown_name_error

Layers: TypeAlias = str | nn.Module | Layer | LayerRule | Sequence[str | nn.Module | Layer]
"""The ``layers`` argument: a rule's name, a layer's name, a module, a `Layer`, a list of these, or a rule."""

_EXPECTED = "Expected a layer's name, a module, a Layer or a rule"


def choose_layers(layers: Layers, records: Sequence[LayerRecord], model: nn.Module) -> list[Layer]:
    """Choose the layers of a traced model that the ``layers`` argument stands for.

    Raises:
        ValueError: A name is unknown (the message offers the closest), the list is empty, or a layer has no grid.
        TypeError: The argument is of an unknown type.
        NotExplainableError: The rule chooses no layer.
    """
    if isinstance(layers, str) and layers in RULES:
        return list(RULES[layers](records))
    if _is_rule(layers):
        choices = list(layers(records))
        if not choices:
            raise NotExplainableError(f"The layer rule {layers!r} chose no layer.")
        return choices
    modules = named_layers(model)
    items = _to_list(layers)
    if not items:
        raise ValueError("Expected at least one layer, but got an empty list.")
    return [_locate_in_trace(check_layer(item, modules), records) for item in items]


def list_non_layers(locations: Iterable[str | None], records: Sequence[LayerRecord]) -> list[Layer]:
    """List the distinct locations of evidence that are not layers.

    Args:
        locations: The ``location`` of every method; None for those that explain layers.
        records: The trace.

    Raises:
        ValueError: A location is unknown.
        NotExplainableError: A method explains all attention, but the trace contains no tokens.
    """
    layers: dict[str, Layer] = {}
    for location in locations:
        if location == PIXELS:
            layers[location] = Layer(location, reason="the images themselves")
        elif location == ATTENTION:
            tokens = [r for r in records if isinstance(r.to_grid, Tokens) and not r.misplaced]
            if not tokens:
                raise NotExplainableError(
                    "Expected a model whose layers return tokens, which attention methods need, but no layer does. "
                    "Choose a method that explains layers, such as 'gradcam'."
                )
            layers[location] = Layer(location, reason="all layers of attention together", to_grid=tokens[-1].to_grid)
        elif location is not None:
            raise ValueError(f"Expected a method's `location` to be {PIXELS!r} or {ATTENTION!r}, but got {location!r}.")
    return list(layers.values())


def check_layers(layers: Layers, model: nn.Module) -> None:
    """Check names and types in the ``layers`` argument, without a trace; errors as for `choose_layers`."""
    if (isinstance(layers, str) and layers in RULES) or _is_rule(layers):
        return
    modules = named_layers(model)
    for item in _to_list(layers):
        check_layer(item, modules)


def check_layer(layer: str | nn.Module | Layer, modules: Mapping[str, nn.Module]) -> Layer:
    """Return the layer that a name, a module or a `Layer` stands for.

    Raises:
        ValueError: The name is unknown, or the module is not part of the model.
        TypeError: It is none of these types.
    """
    if isinstance(layer, nn.Module):
        names = [name for name, module in modules.items() if module is layer]
        if not names:
            raise ValueError(
                f"Expected a module inside the model, but got a {type(layer).__name__} that is not part of it."
            )
        return Layer(names[0], reason="named in `layers`")
    if not isinstance(layer, (str, Layer)):
        raise TypeError(f"{_EXPECTED}, but got {layer!r}.")
    name = clean_name(layer if isinstance(layer, str) else layer.name)
    if name not in modules:
        raise unknown_name_error(RULES.noun, name, [*RULES, *modules])
    return Layer(name, reason="named in `layers`") if isinstance(layer, str) else layer


def _is_rule(layers: object) -> TypeGuard[Callable[[Sequence[LayerRecord]], Sequence[Layer]]]:
    return callable(layers) and not isinstance(layers, (nn.Module, Layer))


def _to_list(layers: object) -> list[str | nn.Module | Layer]:
    """Return the layers of the argument as a list, without locations that are not layers."""
    if isinstance(layers, (str, nn.Module, Layer)):
        return [layers]
    if not isinstance(layers, Iterable):
        raise TypeError(f"{_EXPECTED}, or a list of these, but got {layers!r}.")
    return [layer for layer in layers if not (isinstance(layer, Layer) and not layer.is_module)]


def _locate_in_trace(layer: Layer, records: Sequence[LayerRecord]) -> Layer:
    """Add the tensor layout from the trace to a layer without a ``to_grid`` of its own.

    Raises:
        ValueError: The layer's output has no spatial grid.
    """
    if layer.to_grid is not channels_first:
        return layer
    all_calls = [r for r in records if layer.name in (r.name, *r.inner)]
    calls = [r for r in all_calls if r.call == layer.call or layer.name in r.inner]
    if layer.call > max((r.call for r in all_calls), default=-1):
        calls = calls or all_calls[-1:]  # the last call has the number -1
    if not calls:
        return layer  # the layer did not run; the capture raises the error
    record = calls[-1]
    if record.grid is None:
        raise ValueError(
            f"Expected a layer with a spatial output, but {layer.name!r} returns {list(record.shape)}. Choose another "
            "layer, or pass `Layer(name, to_grid=...)` with a function that turns this into (n, C, *grid)."
        )
    return replace(layer, to_grid=record.to_grid)
