"""Evaluation of a model without side effects on the model or the process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils import checkpoint

from lightning_gradcam.capture.module_state import isolate_modules
from lightning_gradcam.capture.random_state import preserve_random_state

_NOISE = 0.02
"""The standard deviation of the noise that `fill_zero_parameters` puts in place of zeros."""


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Evaluate the model on copies of its buffers, and restore the model and the process afterwards.

    Restored, also after an exception:

    - every attribute of every module, its hooks, children and parameters, and the containers, objects and caches that
      they fill, see `module_state.isolate_modules`. The train flag is set as an attribute, because models override
      `train` and `eval`;
    - buffers, and `.grad`, `requires_grad` and hooks of parameters;
    - the random state of PyTorch (CPU and the model's devices), NumPy and Python;
    - grad mode, inference mode and the autocast weight cache;
    - the fast path of `nn.TransformerEncoder`, which skips hooks of inner modules.

    Inside, grad and inference mode are off, compiled code runs eagerly (compiled code calls no hooks), reentrant
    activation checkpointing is bypassed, and so is cuDNN in recurrent layers that need a gradient.
    """
    modules = _list_modules(model)
    parameters = list({id(p): p for m in modules for p in m._parameters.values() if p is not None}.values())
    classes = {type(module) for module in modules}  # about ten: testing every module takes longer
    has_scripted = any(issubclass(cls, torch.jit.ScriptModule) for cls in classes)
    scripted = [module for module in modules if isinstance(module, torch.jit.ScriptModule)] if has_scripted else []
    eager = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)] if scripted else modules
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(preserve_random_state(parameters))
        stack.enter_context(_preserve_switches(use_fastpath=not any(issubclass(cls, _SKIPS_HOOKS) for cls in classes)))
        if "torch._dynamo" in sys.modules:  # something was compiled: a module, or a function that a module calls
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(isolate_modules(eager))
        if any(issubclass(cls, nn.RNNBase) for cls in classes):
            _bypass_cudnn([module for module in eager if isinstance(module, nn.RNNBase)])
        stack.enter_context(_isolate_scripted(scripted))
        stack.enter_context(_preserve_gradients(parameters))
        yield


def _list_modules(model: nn.Module) -> list[nn.Module]:
    """List the modules of `model.modules()`, in another order and several times as fast."""
    modules: dict[nn.Module, None] = {}
    pending = [model]
    while pending:
        module = pending.pop()
        if module not in modules:
            modules[module] = None
            pending += [child for child in module._modules.values() if child is not None]
    return list(modules)


_SKIPS_HOOKS = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
"""Modules whose fast path skips hooks of inner modules; that of a lone `nn.MultiheadAttention` skips none."""


@contextmanager
def _preserve_switches(use_fastpath: bool) -> Iterator[None]:
    """Set PyTorch's global switches for the pass, and restore them afterwards."""
    fastpath, cache = torch.backends.mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()
    checkpoint_function = checkpoint.CheckpointFunction
    try:
        checkpoint.CheckpointFunction = _BypassCheckpoint  # type: ignore[misc, assignment]  # for the pass
        torch.backends.mha.set_fastpath_enabled(fastpath and use_fastpath)
        # A weight cast without grad must not be found in the cache by a training step of the same autocast region.
        torch.set_autocast_cache_enabled(False)
        yield
    finally:
        checkpoint.CheckpointFunction = checkpoint_function  # type: ignore[misc]  # the original again
        torch.backends.mha.set_fastpath_enabled(fastpath)
        torch.set_autocast_cache_enabled(cache)


class _BypassCheckpoint:
    """A stand-in for reentrant activation checkpointing, which does not support `torch.autograd.grad`."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _bypass_cudnn(modules: Sequence[nn.RNNBase]) -> None:
    """Let recurrent layers run without cuDNN if grad is on: its backward pass refuses evaluation mode.

    The replaced `forward` is an attribute, which `isolate_modules` removes.
    """
    for module in modules:
        vars(module)["forward"] = _without_cudnn(module.forward)


def _without_cudnn(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        cudnn = torch.backends.cudnn
        is_enabled = cudnn.enabled
        try:
            cudnn.enabled = is_enabled and not torch.is_grad_enabled()
            return forward(*args, **kwargs)
        finally:
            cudnn.enabled = is_enabled

    return run


@contextmanager
def _isolate_scripted(modules: Sequence[torch.jit.ScriptModule]) -> Iterator[None]:
    """Switch TorchScript modules to evaluation, and write their flags and buffers back, which cannot be exchanged."""
    states = [(module, module.training, [(b, b.clone()) for b in module.buffers(recurse=False)]) for module in modules]
    try:
        for module, _, _ in states:
            module.training = False
        yield
    finally:
        for module, training, buffers in states:
            module.training = training
            for buffer, value in buffers:
                buffer.data.copy_(value)  # `data` has a version counter of its own


@contextmanager
def _preserve_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Restore `.grad`, `requires_grad` and the hooks of parameters afterwards."""
    states = [(p, p.grad, p.requires_grad) for p in parameters]
    hooks = [[_copy_hooks(h) for h in _list_hooks(p)] for p in parameters]
    try:
        yield
    finally:
        for (parameter, grad, requires_grad), saved in zip(states, hooks, strict=True):
            if parameter.requires_grad is not requires_grad:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not grad:
                parameter.grad = grad
            if _list_hooks(parameter) != saved:
                for name, entries in zip(_HOOK_NAMES, saved, strict=True):
                    setattr(parameter, name, _restore_hooks(getattr(parameter, name), entries))


_Hooks: TypeAlias = dict[int, Any] | None
"""The hooks of a parameter by the numbers of their handles; None until the first one."""


_HOOK_NAMES = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _list_hooks(parameter: nn.Parameter) -> list[_Hooks]:
    return [getattr(parameter, name) for name in _HOOK_NAMES]


def _copy_hooks(hooks: _Hooks) -> _Hooks:
    return None if hooks is None else hooks.copy()


def _restore_hooks(hooks: _Hooks, saved: _Hooks) -> _Hooks:
    """Give a dictionary the hooks it had, in place: handles refer to it."""
    if hooks is not None:
        hooks.clear()  # also where there was none: PyTorch keeps calling those after accumulation
        hooks.update(saved or {})
    return None if saved is None else hooks


@contextmanager
def fill_zero_parameters(model: nn.Module) -> Iterator[None]:
    """Replace parameters that are entirely zero by small noise, so that gradients pass through them; restore them.

    Such parameters are heads, residual branches and their scales. Sharded parameters are not replaced. Use it inside of
    `isolated`, which restores the random state.
    """
    zero = [
        (module._parameters, name, parameter)
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule) and not getattr(module, "_is_fsdp_managed_module", False)
        for name, parameter in module._parameters.items()
        if type(parameter) is nn.Parameter and not hasattr(parameter, "_is_flat_param")  # a DTensor has another type
        if parameter.numel() and not parameter.is_meta and not parameter.any()
    ]
    noise = {id(p): nn.Parameter(_NOISE * torch.randn_like(p), requires_grad=False) for _, _, p in zero}
    try:
        for parameters, name, parameter in zero:
            parameters[name] = noise[id(parameter)]
        yield
    finally:
        for parameters, name, parameter in zero:
            parameters[name] = parameter


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Switch `requires_grad` off for parameters, so that nothing is saved for their gradients; restore it afterwards.

    Sharded parameters and matrices are not frozen: without a gradient for the weight, PyTorch multiplies a matrix batch
    by batch, which adds a third to the time of a Vision Transformer.
    """
    trainable = [p for p in model.parameters() if type(p) is nn.Parameter and p.requires_grad and p.is_leaf]
    freezable = [p for p in trainable if p.ndim != 2 and not hasattr(p, "_is_flat_param")]
    try:
        for parameter in freezable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in freezable:
            parameter.requires_grad_(True)
