"""Other gradients of ReLUs, whether modules or functions, in place or not, for one pass."""

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
"""What goes back through a ReLU: positive gradients where it was active, or positive gradients."""


class ReLURules(TorchFunctionMode):
    """Inside, gradients go back through ReLU and ReLU6 by another rule.

    Calls are taken over, so that no module is hooked or changed: functions, modules that run several times, and those
    that work in place are all the same. TorchScript is not seen, and what is not a ReLU (GELU, say) keeps its gradient.

    Args:
        rule: ``"guided"`` or ``"deconvolution"``.

    >>> x = torch.tensor([-1.0, 1.0, 1.0], requires_grad=True)
    >>> with ReLURules("deconvolution") as found:
    ...     gradient = torch.autograd.grad((x.relu() * torch.tensor([2.0, 2.0, -2.0])).sum(), x)
    >>> gradient, found.calls
    ((tensor([2., 2., 0.]),), 1)
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.guided, self.calls = rule == "guided", 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = _CALLS[func](*args, **kwargs) if func in _CALLS else None
        if found is None:
            return func(*args, **kwargs)
        self.calls += 1
        return _Rectified.apply(*found, self.guided)


_Call: TypeAlias = tuple[Tensor, float, bool]  # what is rectified, the largest value, and whether in place


def _relu(input: Tensor, inplace: bool = False, *, upper: float = math.inf) -> _Call:  # noqa: A002  # as PyTorch's own
    return input, upper, inplace


def _hardtanh(input: Tensor, min_val: float = -1, max_val: float = 1, inplace: bool = False) -> _Call | None:  # noqa: A002
    return (input, max_val, inplace) if min_val == 0 else None  # nn.ReLU6 is one


_CALLS: dict[Callable[..., Any], Callable[..., _Call | None]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), partial(_relu, inplace=True)),
    F.relu6: partial(_relu, upper=6.0),
    F.hardtanh: _hardtanh,
}


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, upper: float, inplace: bool, guided: bool) -> Tensor:
        active = (tensor > 0) & (tensor < upper)
        ctx.save_for_backward(*[active] * guided)
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
