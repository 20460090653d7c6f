"""Resolve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lightning_gradcam.methods import METHODS, LayerMethod, PassMethod, check_extra, count_arguments

Method: TypeAlias = LayerMethod | PassMethod
Methods: TypeAlias = str | Method | Sequence[str | Method]


def coerce_methods(methods: Methods) -> dict[str, Method]:
    """One method or several, by name.

    Raises:
        ValueError: There is none, or no method has that name.
        TypeError: One is neither a name nor a callable of one or two arguments.
    """
    several = [methods] if isinstance(methods, str) or not isinstance(methods, Sequence) else list(methods)
    if not several:
        raise ValueError("Expected at least one method, but got an empty list.")
    named: dict[str, Method] = {}
    seen: list[str] = []
    for method in several:
        name = get_method_name(method)
        twins = seen.count(name)
        seen.append(name)
        named[f"{name} {twins + 1}" if twins else name] = coerce_method(method)
    return named


def coerce_method(method: str | Method) -> Method:
    """The method of that name, or the callable itself.

    Raises:
        ValueError: No method has that name, or it needs an extra that is not installed.
        TypeError: It is neither a name nor a callable of one or two arguments.
    """
    found = METHODS.resolve(method) if isinstance(method, str) else method
    if not callable(found) or count_arguments(found) not in (1, 2):
        raise TypeError(
            "Expected a method's name, a callable of (activations, gradients), or one of (passes), but got "
            f"{found!r}. Names: {', '.join(METHODS)}."
        )
    check_extra(found)
    return found


def describe_target(methods: Mapping[str, Method], target: str) -> str:
    """How titles go on after the methods' names; a method of a neuron has said what it explains.

    >>> describe_target({"gradcam": METHODS["gradcam"]}, "label")
    ' of the label'
    """
    return "" if any(getattr(method, "neuron", None) for method in methods.values()) else f" of the {target}"


def get_method_name(method: str | Method) -> str:
    """How pictures and keys name a method.

    >>> get_method_name("gradcam"), get_method_name(METHODS["gradcam"]), get_method_name(METHODS["gradcam++"])
    ('gradcam', 'gradcam', 'gradcam++')
    """
    if isinstance(method, str):
        return method
    registered = next((name for name, entry in METHODS.items() if entry is method), None)
    return str(registered or getattr(method, "name", None) or getattr(method, "__name__", type(method).__name__))
