"""Methods carried out: by name, with what each of them takes for granted checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast

from torch import Tensor

from lightning_gradcam.explanation import CONSTANT, NotExplainableError
from lightning_gradcam.methods import METHODS, LayerMethod, PassMethod, arity, cam, check_extra, eigencam, takes_passes
from lightning_gradcam.passes import Passes
from lightning_gradcam.variants import Variant

Method: TypeAlias = LayerMethod | PassMethod
Methods: TypeAlias = str | Method | Sequence[str | Method]


def apply(method: Method, passes: Passes) -> Mapping[str, Tensor]:
    """Signed evidence ``(n, *s)`` per key, float32.

    Raises:
        ValueError: The method returned another shape, or a key that is no place.
    """
    if takes_passes(method):
        evidence = dict(cast(PassMethod, method)(passes))
        if not evidence.keys() <= passes.places.keys():
            raise ValueError(
                f"Expected evidence for {' or '.join(map(repr, passes.places))} from method {method_name(method)!r}, "
                f"but got it for {', '.join(map(repr, evidence))}. Evidence that lies at no layer needs a `place`."
            )
    else:
        equation = cast(LayerMethod, method)
        # A method that does not look at gradients gets something of their shape: they cost a backward pass.
        gradients = passes.gradients if uses_gradients(method) else passes.activations
        evidence = {key: equation(passes.activations[key], gradients[key]) for key in passes.layers}
    for key, tensor in evidence.items():
        if tensor.ndim != len(passes.probe.size) + 1 or len(tensor) != len(passes.probe):
            raise ValueError(
                f"Expected evidence of shape ({len(passes.probe)}, *grid) with {len(passes.probe.size)} dimensions in "
                f"the grid from method {method_name(method)!r}, but got {tuple(tensor.shape)} for {key!r}."
            )
    return {key: tensor.detach().float() for key, tensor in evidence.items()}


def uses_gradients(method: Method) -> bool:
    """Whether a zero gradient explains a zero map."""
    return not takes_passes(method) and method is not eigencam


def has_premise(methods: Iterable[Method]) -> bool:
    """Whether `check_premise` has something to check."""
    return any((method.equation if isinstance(method, Variant) else method) is cam for method in methods)


def check_premise(passes: Passes) -> None:
    """CAM takes for granted that the head pools the whole map. (Waits for the device.)

    Raises:
        NotExplainableError: The gradient varies over the map.
    """
    for key, gradients in passes.gradients.items():
        low, high = gradients.flatten(2).aminmax(dim=2)
        if bool((high - low).amax() > CONSTANT * gradients.abs().amax()):
            raise NotExplainableError(
                f"CAM needs a head that takes the mean of the whole map, but behind layer {key!r} the score's gradient "
                "varies from place to place. Use `method='gradcam'`, which serves any head, or name the layer right "
                "before the pooling in `layers=`."
            )


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
        name = method_name(method)
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
    found = METHODS.named(method) if isinstance(method, str) else method
    if not callable(found) or arity(found) not in (1, 2):
        raise TypeError(
            "Expected a method's name, a callable of (activations, gradients), or one of (passes), but got "
            f"{found!r}. Names: {', '.join(METHODS)}."
        )
    check_extra(found)
    return found


def of_target(methods: Mapping[str, Method], target: str) -> str:
    """How titles go on after the methods' names; a method of a neuron has said what it explains.

    >>> of_target({"gradcam": METHODS["gradcam"]}, "label")
    ' of the label'
    """
    return "" if any(getattr(method, "neuron", None) for method in methods.values()) else f" of the {target}"


def method_name(method: str | Method) -> str:
    """How pictures and keys name a method.

    >>> method_name("gradcam"), method_name(METHODS["gradcam"]), method_name(METHODS["gradcam++"])
    ('gradcam', 'gradcam', 'gradcam++')
    """
    if isinstance(method, str):
        return method
    registered = next((name for name, entry in METHODS.items() if entry is method), None)
    return str(registered or getattr(method, "name", None) or getattr(method, "__name__", type(method).__name__))
