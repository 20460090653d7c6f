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
from lightning_gradcam.layers.calls import choose_calls
from lightning_gradcam.layers.record_graph import find_dependent
from lightning_gradcam.layers.rules import RULES, LayerRule
from lightning_gradcam.utils.registry import unknown_name_error

Layers: TypeAlias = str | nn.Module | Layer | LayerRule | Sequence[str | nn.Module | Layer]
"""The ``layers`` argument: a rule's name, a layer's name, a module, a `Layer`, a list of these, or a rule."""

NAMED = "named in `layers`"
"""Reason of a layer whose name, or module, was passed."""

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
        return Layer(names[0], reason=NAMED)
    if not isinstance(layer, (str, Layer)):
        raise TypeError(f"{_EXPECTED}, but got {layer!r}.")
    name = clean_name(layer if isinstance(layer, str) else layer.name)
    if name not in modules:
        raise unknown_name_error(RULES.noun, name, [*RULES, *modules])
    return Layer(name, reason=NAMED) if isinstance(layer, str) else layer


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
    """Add the calls and the tensor layout from the trace to a layer.

    Raises:
        ValueError: The layer's output has no spatial grid.
        NotExplainableError: The layer does not depend on the images.
    """
    calls = choose_calls(layer.name, records)
    if calls is None:
        return layer  # the layer did not run; the capture raises the error
    record = calls.record
    if layer.reason == NAMED and layer.call == -1:
        _check_dependence(layer, records)
        reason = layer.reason + calls.reason
        layer = replace(layer, reason=reason, calls=() if calls.is_last else calls.indices)
    elif not layer.calls:
        record = next((r for r in records if _is_call(r, layer, calls.num_calls)), record)
    if layer.to_grid is not channels_first:
        return layer
    if record.grid is None:
        raise ValueError(
            f"Expected a layer with a spatial output, but {layer.name!r} returns {list(record.shape)}. Choose another "
            "layer, or pass `Layer(name, to_grid=...)` with a function that turns this into (n, C, *grid)."
        )
    return replace(layer, to_grid=record.to_grid)


def _is_call(record: LayerRecord, layer: Layer, count: int) -> bool:
    """Return whether a record is the one of a layer's call, whose module runs ``count`` times."""
    call = record.find_call(layer.name)
    return call is not None and call % count == layer.call % count


def _check_dependence(layer: Layer, records: Sequence[LayerRecord]) -> None:
    """Check that a layer that is named without a call depends on the images.

    Raises:
        NotExplainableError: It depends on other inputs alone, while other layers depend on the images.
    """
    dependent = find_dependent(records)
    calls = [i for i, r in enumerate(records) if layer.name in (r.name, *r.inner)]
    if dependent.isdisjoint(calls) and dependent and any(records[i].reaches for i in calls):
        raise NotExplainableError(
            f"Layer {layer.name!r} does not depend on the images that are shown, but on other inputs. Choose another "
            "layer, pass those inputs as the images, or pass `layers=Layer(name, call=0)` to explain it anyway."
        )
