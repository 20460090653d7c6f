"""Resolution of the argument ``method``: names and callables to methods by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lightning_gradcam.methods import METHODS, LayerMethod, PassMethod, check_requirement, count_arguments, get_neuron

Method: TypeAlias = LayerMethod | PassMethod
Methods: TypeAlias = str | Method | Sequence[str | Method]


def coerce_methods(methods: Methods) -> dict[str, Method]:
    """Convert one method or several to a mapping by name; a repeated name gets a number.

    Raises:
        ValueError: The list is empty, a name is unknown, or an optional package is missing.
        TypeError: An item is neither a name nor a callable of one or two arguments.

    >>> list(coerce_methods(["gradcam", "gradcam"]))
    ['gradcam', 'gradcam 2']
    """
    items = [methods] if isinstance(methods, str) or not isinstance(methods, Sequence) else list(methods)
    if not items:
        raise ValueError("Expected `method` to contain at least one method, but got an empty list.")
    method_by_name: dict[str, Method] = {}
    names: list[str] = []
    for item in items:
        name = get_method_name(item)
        duplicates = names.count(name)
        names.append(name)
        method_by_name[f"{name} {duplicates + 1}" if duplicates else name] = coerce_method(item)
    return method_by_name


def coerce_method(method: str | Method) -> Method:
    """Return the registered method of a name, or the callable itself.

    Raises:
        ValueError: The name is unknown, or the method's optional package is missing.
        TypeError: The method is neither a name nor a callable of one or two arguments.
    """
    function = METHODS.resolve(method) if isinstance(method, str) else method
    if not callable(function) or count_arguments(function) not in (1, 2):
        raise TypeError(
            "Expected `method` to be a name, a callable of (activations, gradients), or a callable of (passes), but "
            f"got {function!r}. Names: {', '.join(METHODS)}."
        )
    check_requirement(function)
    return function


def describe_target(methods: Mapping[str, Method], target: str) -> str:
    """Return what follows the methods' names in titles: the target, unless a method's name already has a neuron.

    >>> describe_target({"gradcam": METHODS["gradcam"]}, "label")
    ' of the label'
    """
    return "" if any(get_neuron(method) for method in methods.values()) else f" of the {target}"


def get_method_name(method: str | Method) -> str:
    """Return a method's name in figures and keys.

    >>> get_method_name("gradcam"), get_method_name(METHODS["gradcam"]), get_method_name(METHODS["gradcam++"])
    ('gradcam', 'gradcam', 'gradcam++')
    """
    if isinstance(method, str):
        return method
    registered = next((name for name, entry in METHODS.items() if entry is method), None)
    return str(registered or getattr(method, "name", None) or getattr(method, "__name__", type(method).__name__))
