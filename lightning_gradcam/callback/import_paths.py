"""Callables in arguments, given by their import path, as YAML and the command line must.

The paths are imported here and not by jsonargparse: with a type hint that accepts callables before names, it saves
every name and every list as a callable that cannot be serialized.
"""

from __future__ import annotations

import re
from collections.abc import Container
from pkgutil import resolve_name
from typing import Any

from torch import nn

from lightning_gradcam.capture.hooks import clean_name, named_layers
from lightning_gradcam.layers import RULES, Layers

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def import_if_path(argument: str, value: Any, names: Container[str]) -> Any:
    """Return the object at an import path, an instance if it is a class; return other values unchanged.

    Args:
        argument: The name of the argument, for the message.
        value: A value of any type; the items of a list are imported, too.
        names: Registered names, which are not paths even if they contain dots.

    Raises:
        ValueError: The object could not be imported.

    >>> import_if_path("method", ["math.sqrt", "gradcam"], names=("gradcam",))
    [<built-in function sqrt>, 'gradcam']
    """
    if isinstance(value, list):
        return [import_if_path(argument, item, names) for item in value]
    if not isinstance(value, str) or value in names or not _PATH.fullmatch(value):
        return value
    try:
        return _import_object(value)
    except Exception as error:  # an import runs code of the user
        raise ValueError(
            f"Expected `{argument}` to be a name or an import path, but {value!r} could not be imported "
            f"({type(error).__name__}: {error})."
        ) from error


def import_rule(layers: Layers, model: nn.Module) -> Layers:
    """Return the layer rule at an import path; return other values of ``layers`` unchanged.

    The names of layers contain dots as well, so a path counts only if the model has no layer of this name.
    """
    if not isinstance(layers, str) or layers in RULES or not _PATH.fullmatch(layers):
        return layers
    if clean_name(layers) in named_layers(model):
        return layers
    try:
        rule = _import_object(layers)
    except (ImportError, AttributeError):
        return layers  # an unknown layer, which has an error of its own
    return rule if callable(rule) else layers


def _import_object(path: str) -> Any:
    target = resolve_name(path)
    return target() if isinstance(target, type) else target
