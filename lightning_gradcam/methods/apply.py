"""Application of a method to a captured pass, and the check of CAM's assumption."""

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


def apply_method(method: Method, passes: CapturedPass) -> Mapping[str, Tensor]:
    """Compute a method's signed evidence ``(n, *s)`` per key, in float32.

    Raises:
        ValueError: The method returned another shape, or an unknown key.
    """
    if is_pass_method(method):
        evidence = dict(cast(PassMethod, method)(passes))
        if not evidence.keys() <= passes.locations.keys():
            raise ValueError(
                f"Expected evidence for {' or '.join(map(repr, passes.locations))} from method "
                f"{get_method_name(method)!r}, but got evidence for {', '.join(map(repr, evidence))}. Set the method's "
                "attribute `location` if its evidence is not at a layer."
            )
    else:
        equation = cast(LayerMethod, method)
        # Gradients cost a backward pass, so a method that ignores them gets another tensor of their shape.
        gradients = passes.gradients if uses_gradients(method) else passes.activations
        evidence = {key: equation(passes.activations[key], gradients[key]) for key in passes.layers}
    for key, tensor in evidence.items():
        if tensor.ndim != len(passes.probe.size) + 1 or len(tensor) != len(passes.probe):
            raise ValueError(
                f"Expected evidence of shape ({len(passes.probe)}, *grid) with {len(passes.probe.size)} grid "
                f"dimensions from method {get_method_name(method)!r}, but got {tuple(tensor.shape)} for {key!r}."
            )
    return {key: tensor.detach().float() for key, tensor in evidence.items()}


def uses_gradients(method: Method) -> bool:
    """Return whether a method reads the gradients, so that a zero gradient explains a zero map."""
    return not is_pass_method(method) and method is not eigencam


def needs_mean_head(methods: Iterable[Method]) -> bool:
    """Return whether one of the methods is CAM, which `check_mean_head` checks."""
    return any((method.equation if isinstance(method, Variant) else method) is cam for method in methods)


def check_mean_head(passes: CapturedPass) -> None:
    """Check CAM's assumption that the head averages the whole map; waits for the device.

    Raises:
        NotExplainableError: The gradient varies over the map.
    """
    for key, gradients in passes.gradients.items():
        low, high = gradients.flatten(2).aminmax(dim=2)
        if bool((high - low).amax() > CONSTANT * gradients.abs().amax()):
            raise NotExplainableError(
                f"CAM needs a head that takes the mean of the whole map, but after layer {key!r} the score's gradient "
                "varies between positions. Use `method='gradcam'`, which works with any head, or choose the layer "
                "right before the pooling with `layers=`."
            )
