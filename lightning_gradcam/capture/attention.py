"""All attention weights of a forward pass, and the score's gradients with respect to them."""

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
class _AttentionCall:
    """A recorded call that computes attention.

    Args:
        output: The tensor to compute the gradient for: the softmax, or the output of a fused kernel.
        weights: The attention weights ``(n, heads, L, L)``.
        values: The values that a fused kernel weighs; None for a softmax.
    """

    output: Tensor
    weights: Tensor
    values: Tensor | None = None

    def with_gradient(self, gradient: Tensor | None) -> AttentionMap:
        """Return the weights and the gradient with respect to them, from the gradient with respect to the output."""
        if gradient is None:
            return AttentionMap(self.weights, torch.zeros_like(self.weights))
        # A fused kernel returns weights @ values.
        weights_gradient = gradient if self.values is None else gradient.to(self.weights.dtype) @ self.values.mT
        return AttentionMap(self.weights, weights_gradient.reshape(self.weights.shape).to(self.weights.dtype))


@dataclass
class _AttentionRecorder:
    """Calls PyTorch's functions for a model and records those that compute attention.

    Args:
        rows: Number of images.
        needs_grad: Whether gradients will be computed.
    """

    rows: int
    needs_grad: bool
    calls: list[_AttentionCall] = field(default_factory=list)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function, record its attention, and return its output."""
        if function is _COMPOSED:
            return self._copy_recorded(cast(FunctionType, _COMPOSED))(*args, **kwargs)
        output = function(*args, **kwargs)
        if function is _FUSED:
            return self._record(output, *compute_weights_and_values(*args, **kwargs))
        if function in _SOFTMAX and is_attention(output, args[1] if len(args) > 1 else kwargs.get("dim")):
            return self._record(output, split_heads(output.detach(), self.rows), None)
        return output

    def _record(self, output: Tensor, weights: Tensor, values: Tensor | None) -> Tensor:
        """Record a call, and return the tensor that the model continues with."""
        clone = output
        if self.needs_grad:
            output, clone = with_grad(output)
        self.calls.append(_AttentionCall(output, weights, values))
        return clone

    def _copy_recorded(self, function: FunctionType) -> Callable[..., Any]:
        """Copy a Python function of PyTorch so that the calls inside of it are recorded.

        A `TorchFunctionMode` is off inside of the functions that it handles. So the copy has the same code, but finds
        recording functions under the names of the attention functions that it calls.
        """

        def record_calls(name: str) -> Callable[..., Any]:
            return lambda *args, **kwargs: self.call(getattr(F, name), args, kwargs)

        recording = {name: record_calls(name) for name in (_FUSED.__name__, "softmax")}
        scope = {**function.__globals__, **recording, "has_torch_function": lambda _: False}
        recorded = FunctionType(
            function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
        )
        recorded.__kwdefaults__ = function.__kwdefaults__
        return recorded


class _RecorderMode(TorchFunctionMode):
    """A mode in which an `_AttentionRecorder` handles all calls of PyTorch functions."""

    def __init__(self, recorder: _AttentionRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.recorder.call(func, args, kwargs or {})


def capture_attention(
    model: nn.Module, probe: Probe, run: Callable[[Probe], Any], target: Target | None
) -> tuple[AttentionMap, ...]:
    """Run the model once and capture all attention; its output is the one without attention's fast path.

    Args:
        model: Isolated, see `isolation.isolated`.
        probe: The images.
        run: A forward pass of the model.
        target: The score whose gradients to compute; None for weights only.

    Returns:
        One `AttentionMap` per call, in order of execution.

    Raises:
        NotExplainableError: The pass computed no attention that can be recorded, or the score carries no gradient.
    """
    output, calls = _run_recorded(probe, run, target is not None)
    if not calls:
        raise NotExplainableError(
            f"Expected attention in {type(model).__name__}, but its forward pass called neither "
            "`scaled_dot_product_attention` nor a softmax over tokens. TorchScript and kernels of other packages hide "
            "their attention. Choose a method that explains layers, such as 'gradcam'."
        )
    if target is None:
        return tuple(AttentionMap(call.weights) for call in calls)
    gradients = _compute_gradients(target, output, probe, calls)
    if gradients is None or any(gradient is None for gradient in gradients):
        with torch.enable_grad():  # the model has a no_grad block of its own
            output, calls = _run_recorded(probe, run, True)
        gradients = _compute_gradients(target, output, probe, calls)
        if gradients is None:
            with torch.enable_grad():
                check_has_gradient(target(output, probe))
    return tuple(call.with_gradient(gradient) for call, gradient in zip(calls, gradients or (), strict=True))


def _run_recorded(probe: Probe, run: Callable[[Probe], Any], needs_grad: bool) -> tuple[Any, list[_AttentionCall]]:
    """Run a forward pass; return its output and the recorded attention calls."""
    recorder, is_grad_enabled = _AttentionRecorder(len(probe), needs_grad), torch.is_grad_enabled()
    try:
        with _RecorderMode(recorder):  # with a mode, attention does not take its fast path, a single kernel
            output = run(probe)
    finally:
        torch.set_grad_enabled(is_grad_enabled)
    return output, recorder.calls


def _compute_gradients(
    target: Target, output: Any, probe: Probe, calls: Sequence[_AttentionCall]
) -> Sequence[Tensor | None] | None:
    """Compute the score's gradients with respect to the calls' outputs; None if it carries none."""
    with torch.enable_grad():
        scores = target(output, probe)
        if not scores.requires_grad:
            return None
        return torch.autograd.grad(scores.sum(), [call.output for call in calls], allow_unused=True)


def is_attention(softmax: Tensor, dim: int | None) -> bool:
    """Return whether a softmax runs over tokens, head by head.

    >>> [is_attention(torch.ones(*shape), -1) for shape in ((2, 3, 5, 5), (6, 5, 5), (2, 5))]
    [True, True, False]
    """
    return softmax.ndim in (3, 4) and dim in (-1, softmax.ndim - 1)


def split_heads(weights: Tensor, rows: int) -> Tensor:
    """Reshape weights ``(n * heads, L, L)`` or ``(n, heads, L, L)`` to the latter, in at least float32."""
    if weights.ndim == 3:
        weights = weights.reshape(rows, -1, *weights.shape[1:]) if len(weights) % rows == 0 else weights[:, None]
    return weights if weights.dtype == torch.float64 else weights.float()


def compute_weights_and_values(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001  # what a model drops in evaluation cannot be observed
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute the weights inside of `scaled_dot_product_attention`, ``(n, heads, L, L)``, and the values they weigh.

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
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        if attn_mask is not None:
            is_boolean = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if is_boolean else scores + attn_mask.detach()
        return scores.softmax(-1), v
