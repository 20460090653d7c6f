"""Alternative backward rules of ReLUs for one pass, for modules and functions, in place or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Rule: TypeAlias = Literal["guided", "deconvolution"]
"""The gradients that a ReLU passes back: positive ones of active units (``guided``), or all positive ones."""


class ReLURules(TorchFunctionMode):
    """Context in which ReLU and ReLU6 use another backward rule.

    The context intercepts function calls, so no module is hooked or changed; functions, modules that run several times
    and in-place ReLUs all work. TorchScript is not intercepted, and other activations, such as GELU, keep their
    gradient.

    Args:
        rule: ``"guided"`` or ``"deconvolution"``.

    Attributes:
        calls: How many ReLUs have run.

    >>> x = torch.tensor([-1.0, 1.0, 1.0], requires_grad=True)
    >>> with ReLURules("deconvolution") as relu_rules:
    ...     gradient = torch.autograd.grad((x.relu() * torch.tensor([2.0, 2.0, -2.0])).sum(), x)
    >>> gradient, relu_rules.calls
    ((tensor([2., 2., 0.]),), 1)
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.is_guided, self.calls = rule == "guided", 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        relu_call = _PARSERS[func](*args, **kwargs) if func in _PARSERS else None
        if relu_call is None:
            return func(*args, **kwargs)
        self.calls += 1
        return _ReLUWithRule.apply(*relu_call, self.is_guided)


_ReLUCall: TypeAlias = tuple[Tensor, float, bool]  # the input, the upper bound, and whether it runs in place


def _parse_relu(input: Tensor, inplace: bool = False, *, upper: float = math.inf) -> _ReLUCall:  # noqa: A002  # PyTorch's
    return input, upper, inplace


def _parse_hardtanh(
    input: Tensor,  # noqa: A002  # PyTorch's name
    min_val: float = -1,
    max_val: float = 1,
    inplace: bool = False,
) -> _ReLUCall | None:
    """Return the call of a bounded ReLU, such as `nn.ReLU6`; None if the lower bound is not 0."""
    return (input, max_val, inplace) if min_val == 0 else None


_PARSERS: dict[Callable[..., Any], Callable[..., _ReLUCall | None]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _parse_relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), partial(_parse_relu, inplace=True)),
    F.relu6: partial(_parse_relu, upper=6.0),
    F.hardtanh: _parse_hardtanh,
}


class _ReLUWithRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, upper: float, inplace: bool, is_guided: bool) -> Tensor:
        active = (tensor > 0) & (tensor < upper)
        ctx.save_for_backward(*[active] * is_guided)
        if inplace:
            ctx.mark_dirty(tensor)
            return tensor.clamp_(0, upper)
        return tensor.clamp(0, upper)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        positive = gradients[0].clamp_min(0)
        for active in ctx.saved_tensors:
            positive = positive * active
        return positive, None, None, None
