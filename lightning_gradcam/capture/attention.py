"""All attention of a pass: what each token takes from which, and the score's gradient there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lightning_gradcam.capture.outputs import with_grad
from lightning_gradcam.capture.passes import AttentionMap, check_has_gradient
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax)
_FUSED = F.scaled_dot_product_attention
_COMPOSED = F.multi_head_attention_forward


@dataclass
class _Seen:
    """A call that attends: its softmax, or where that is inside of a fused kernel, what the kernel returned."""

    made: Tensor  # what the gradient is asked for
    weights: Tensor
    values: Tensor | None = None  # of a fused kernel, which weighs them

    def with_gradient(self, gradient: Tensor | None) -> AttentionMap:
        """Its weights with the score's gradient there, from that with respect to what was made."""
        if gradient is None:
            return AttentionMap(self.weights, torch.zeros_like(self.weights))
        # The kernel returns weights @ values.
        inside = gradient if self.values is None else gradient.to(self.weights.dtype) @ self.values.mT
        return AttentionMap(self.weights, inside.reshape(self.weights.shape).to(self.weights.dtype))


@dataclass
class _Watching:
    """Sees the calls that attend, and returns what they return.

    Args:
        rows: How many images there are.
        graph: Whether gradients are to be asked for.
    """

    rows: int
    graph: bool
    seen: list[_Seen] = field(default_factory=list)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it, and note what it attends to."""
        if function is _COMPOSED:
            return self._inside(cast(FunctionType, _COMPOSED))(*args, **kwargs)
        output = function(*args, **kwargs)
        if function is _FUSED:
            return self._noted(output, *compute_weights_and_values(*args, **kwargs))
        if function in _SOFTMAX and is_attention(output, args[1] if len(args) > 1 else kwargs.get("dim")):
            return self._noted(output, split_heads(output.detach(), self.rows), None)
        return output

    def _noted(self, output: Tensor, weights: Tensor, values: Tensor | None) -> Tensor:
        made = output
        if self.graph:
            made, output = with_grad(output)
        self.seen.append(_Seen(made, weights, values))
        return output

    def _inside(self, function: FunctionType) -> Callable[..., Any]:
        """The function, whose own calls are seen as well: a mode is off inside of the functions that it sees."""

        def within(name: str) -> Callable[..., Any]:
            return lambda *args, **kwargs: self.call(getattr(F, name), args, kwargs)

        ours = {name: within(name) for name in (_FUSED.__name__, "softmax")}
        scope = {**function.__globals__, **ours, "has_torch_function": lambda _: False}
        copied = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
        copied.__kwdefaults__ = function.__kwdefaults__
        return copied


class _Mode(TorchFunctionMode):
    """Shows a `_Watching` what PyTorch is called for."""

    def __init__(self, watching: _Watching) -> None:
        super().__init__()
        self.watching = watching

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.watching.call(func, args, kwargs or {})


def capture_attention(
    model: nn.Module, probe: Probe, run: Callable[[Probe], Any], target: Target | None
) -> tuple[AttentionMap, ...]:
    """Run the model once and keep all attention; what it returns is what it returns without attention's fast path.

    Args:
        model: Isolated, see `isolation.isolated`.
        probe: The images.
        run: A forward pass of the model.
        target: The score whose gradient is asked for; None for weights only.

    Returns:
        One `AttentionMap` per call, in order of execution.

    Raises:
        NotExplainableError: None was seen, or the score carries no gradient.
    """
    output, seen = _watched(probe, run, target is not None)
    if not seen:
        raise NotExplainableError(
            f"Expected attention in {type(model).__name__}, but saw none: Python called neither "
            "`scaled_dot_product_attention` nor a softmax over tokens (TorchScript and other packages' kernels hide "
            "theirs). Choose a method that is read at layers, 'gradcam' say."
        )
    if target is None:
        return tuple(AttentionMap(each.weights) for each in seen)
    gradients = _gradients(target, output, probe, seen)
    if gradients is None or any(gradient is None for gradient in gradients):
        with torch.enable_grad():  # the model has a no_grad block of its own
            output, seen = _watched(probe, run, True)
        gradients = _gradients(target, output, probe, seen)
        if gradients is None:
            with torch.enable_grad():
                check_has_gradient(target(output, probe))
    return tuple(each.with_gradient(gradient) for each, gradient in zip(seen, gradients or (), strict=True))


def _watched(probe: Probe, run: Callable[[Probe], Any], graph: bool) -> tuple[Any, list[_Seen]]:
    watching, before = _Watching(len(probe), graph), torch.is_grad_enabled()
    try:
        with _Mode(watching):  # which keeps attention from its fast path, one kernel for all of it
            output = run(probe)
    finally:
        torch.set_grad_enabled(before)
    return output, watching.seen


def _gradients(target: Target, output: Any, probe: Probe, seen: Sequence[_Seen]) -> Sequence[Tensor | None] | None:
    """With respect to what was seen; None where the score carries none."""
    with torch.enable_grad():
        scores = target(output, probe)
        if not scores.requires_grad:
            return None
        return torch.autograd.grad(scores.sum(), [each.made for each in seen], allow_unused=True)


def is_attention(softmax: Tensor, dim: int | None) -> bool:
    """Whether a softmax is one over tokens, head by head.

    >>> [is_attention(torch.ones(*shape), -1) for shape in ((2, 3, 5, 5), (6, 5, 5), (2, 5))]
    [True, True, False]
    """
    return softmax.ndim in (3, 4) and dim in (-1, softmax.ndim - 1)


def split_heads(weights: Tensor, rows: int) -> Tensor:
    """``(n * heads, L, L)``, or what has heads, as ``(n, heads, L, L)`` in at least float32."""
    if weights.ndim == 3:
        weights = weights.reshape(rows, -1, *weights.shape[1:]) if len(weights) % rows == 0 else weights[:, None]
    return weights if weights.dtype == torch.float64 else weights.float()


def compute_weights_and_values(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001  # what a model drops in evaluation, nobody can see
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """The weights inside of `scaled_dot_product_attention`, ``(n, heads, L, L)``, and the values that they weigh.

    >>> zeros, ones = torch.zeros(1, 1, 2, 4), torch.ones(1, 1, 2, 4)
    >>> compute_weights_and_values(zeros, zeros, ones, is_causal=True)[0]
    tensor([[[[1.0000, 0.0000],
              [0.5000, 0.5000]]]])
    """
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        q, k, v = (tensor.detach().to(dtype) for tensor in (query, key, value))
        q, k, v = (tensor[:, None] if tensor.ndim == 3 else tensor for tensor in (q, k, v))
        if enable_gqa:
            k, v = (tensor.repeat_interleave(q.shape[-3] // tensor.shape[-3], -3) for tensor in (k, v))
        scores = q @ k.mT * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        if attn_mask is not None:
            off = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if off else scores + attn_mask.detach()
        return scores.softmax(-1), v
