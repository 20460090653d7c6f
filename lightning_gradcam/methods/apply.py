"""Methods carried out: by name, with what each of them takes for granted checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from torch import Tensor

from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods import LayerMethod, PassMethod, cam, eigencam, is_pass_method
from lightning_gradcam.methods.resolve import Method, get_method_name
from lightning_gradcam.methods.variants import Variant
from lightning_gradcam.utils.numerics import CONSTANT


def apply_methods(method: Method, passes: CapturedPass) -> Mapping[str, Tensor]:
    """Signed evidence ``(n, *s)`` per key, float32.

    Raises:
        ValueError: The method returned another shape, or a key that is no place.
    """
    if is_pass_method(method):
        evidence = dict(cast(PassMethod, method)(passes))
        if not evidence.keys() <= passes.locations.keys():
            raise ValueError(
                f"Expected evidence for {' or '.join(map(repr, passes.locations))} from method "
                f"{get_method_name(method)!r}, but got it for {', '.join(map(repr, evidence))}. Evidence that lies at "
                "no layer needs a `place`."
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
                f"the grid from method {get_method_name(method)!r}, but got {tuple(tensor.shape)} for {key!r}."
            )
    return {key: tensor.detach().float() for key, tensor in evidence.items()}


def uses_gradients(method: Method) -> bool:
    """Whether a zero gradient explains a zero map."""
    return not is_pass_method(method) and method is not eigencam


def has_premise(methods: Iterable[Method]) -> bool:
    """Whether `check_premise` has something to check."""
    return any((method.equation if isinstance(method, Variant) else method) is cam for method in methods)


def check_premise(passes: CapturedPass) -> None:
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
