"""The two kinds of methods, and their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TypeAlias

from torch import Tensor

from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.utils.registry import Registry

LayerMethod: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(activations, gradients)``, both ``(n, C, *s)``, to signed evidence ``(n, *s)``, without a final ReLU."""

PassMethod: TypeAlias = Callable[[CapturedPass], Mapping[str, Tensor]]
"""What a layer method cannot say: from a pass and the means for more to signed evidence ``(n, *s)`` per key.

Keys are those of `CapturedPass.layers`. Where evidence lies elsewhere, the method has an attribute ``place``:
`layer.PIXELS` or `layer.ATTENTION`, which is its only key then; it needs no layer.
"""

METHODS = Registry[LayerMethod | PassMethod]("method")
"""Methods by name; ``@METHODS.register("name")`` adds one."""


def is_pass_method(method: LayerMethod | PassMethod) -> bool:
    """Whether it is a `PassMethod`, which may do anything with the graph; else a `LayerMethod`."""
    return count_arguments(method) == 1


def get_location(method: LayerMethod | PassMethod) -> str | None:
    """Where its evidence lies, if not at layers."""
    return getattr(method, "place", None)


def check_extra(method: LayerMethod | PassMethod) -> None:
    """Raise a ValueError where a method needs an extra of this package that is not installed; nothing is imported."""
    extra = getattr(method, "extra", None)
    if extra is not None and find_spec(extra) is None:
        raise ValueError(
            f"Expected {extra} to be installed, which the method {getattr(method, 'name', method)!r} calls: "
            f"pip install 'lightning_gradcam[{extra}]'"
        )


def count_arguments(function: Callable[..., object]) -> int:
    """How many arguments it wants by position."""
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
