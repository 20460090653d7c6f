"""How evidence is computed: equations on a layer's activations and gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor

from lightning_gradcam.passes import Passes
from lightning_gradcam.registry import Registry

LayerMethod: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(activations, gradients)``, both ``(n, C, *s)``, to signed evidence ``(n, *s)``, without a final ReLU."""

PassMethod: TypeAlias = Callable[[Passes], Mapping[str, Tensor]]
"""What a layer method cannot say: from a pass and the means for more to signed evidence ``(n, *s)`` per layer key."""

METHODS = Registry[LayerMethod | PassMethod]("method")
"""Methods by name; ``@METHODS.register("name")`` adds one."""


@METHODS.register("gradcam")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM: channels weighted by the mean of their gradients.

    .. math:: \sum_k \operatorname{mean}_{hw}(g_k)\, A_k

    Selvaraju et al. 2017, arXiv:1610.02391 (there with a final ReLU).

    >>> gradcam(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0]]]))
    tensor([[2., 4.]])
    """
    weights = gradients.flatten(2).mean(2)
    return torch.einsum("nc,nc...->n...", weights, activations)


def apply(method: LayerMethod | PassMethod, passes: Passes) -> Mapping[str, Tensor]:
    """Signed evidence ``(n, *s)`` per layer key, float32.

    Raises:
        ValueError: The method returned another shape.
    """
    if _takes_passes(method):
        evidence = dict(cast(PassMethod, method)(passes))
    else:
        equation = cast(LayerMethod, method)
        evidence = {key: equation(passes.activations[key], passes.gradients[key]) for key in passes.layers}
    for key, tensor in evidence.items():
        if tensor.ndim != len(passes.probe.size) + 1 or len(tensor) != len(passes.probe):
            raise ValueError(
                f"Expected evidence of shape ({len(passes.probe)}, *grid) with {len(passes.probe.size)} dimensions in "
                f"the grid from method {method_name(method)!r}, but got {tuple(tensor.shape)} for {key!r}."
            )
    return {key: tensor.detach().float() for key, tensor in evidence.items()}


def coerce_methods(
    methods: str | LayerMethod | PassMethod | Sequence[str | LayerMethod | PassMethod],
) -> dict[str, LayerMethod | PassMethod]:
    """One method or several, by name.

    Raises:
        ValueError: There is none, or no method has that name.
        TypeError: One is neither a name nor a callable of one or two arguments.
    """
    several = [methods] if isinstance(methods, str) or not isinstance(methods, Sequence) else list(methods)
    if not several:
        raise ValueError("Expected at least one method, but got an empty list.")
    named: dict[str, LayerMethod | PassMethod] = {}
    for method in several:
        name = method_name(method)
        twins = sum(other.split(" ")[0] == name for other in named)
        named[f"{name} {twins + 1}" if twins else name] = coerce_method(method)
    return named


def uses_gradients(method: LayerMethod | PassMethod) -> bool:
    """Whether a zero gradient explains a zero map."""
    return not _takes_passes(method)


def coerce_method(method: str | LayerMethod | PassMethod) -> LayerMethod | PassMethod:
    """The method of that name, or the callable itself.

    Raises:
        ValueError: No method has that name.
        TypeError: It is neither a name nor a callable of one or two arguments.
    """
    if isinstance(method, str):
        return METHODS.named(method)
    if not callable(method) or _arity(method) not in (1, 2):
        raise TypeError(
            "Expected a method's name, a callable of (activations, gradients), or one of (passes), but got "
            f"{method!r}. Names: {', '.join(METHODS)}."
        )
    return method


def method_name(method: str | LayerMethod | PassMethod) -> str:
    """How pictures and keys name a method.

    >>> method_name("gradcam"), method_name(gradcam)
    ('gradcam', 'gradcam')
    """
    return method if isinstance(method, str) else str(getattr(method, "__name__", type(method).__name__))


def _takes_passes(method: LayerMethod | PassMethod) -> bool:
    return _arity(method) == 1


def _arity(function: Callable[..., object]) -> int:
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
