"""Evaluation of a model without side effects on the model or the process."""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import checkpoint

SEED = 0
"""The random seed inside of `isolated`: the same weights give the same map."""

_NOISE = 0.02
"""The standard deviation of the noise that `fill_zero_parameters` puts in place of zeros."""


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Evaluate the model on copies of its buffers, and restore the model and the process afterwards.

    Restored, also after an exception:

    - every attribute of every module, including the train flag, which is set as an attribute because models override
      `train` and `eval`;
    - buffers, and `.grad` and `requires_grad` of parameters;
    - the random state of PyTorch (CPU and the model's devices), NumPy and Python;
    - grad mode, inference mode and the autocast weight cache;
    - the fast path of `nn.TransformerEncoder`, which skips hooks of inner modules.

    Inside, grad and inference mode are off, compiled code runs eagerly (compiled code calls no hooks), and reentrant
    activation checkpointing is bypassed.
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
        stack.enter_context(_preserve_random_state(parameters))
        stack.enter_context(_preserve_switches(use_fastpath=not any(issubclass(cls, _SKIPS_HOOKS) for cls in classes)))
        if "torch._dynamo" in sys.modules:  # something was compiled: a module, or a function that a module calls
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_isolate_attributes(eager))
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


@contextmanager
def _preserve_random_state(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Seed all random number generators, and restore their states afterwards."""
    devices = sorted({d for d in {p.device for p in parameters} if d.type not in ("cpu", "meta")}, key=str)
    accelerators = [(torch.get_device_module(device), device) for device in devices]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    states = [module.get_rng_state(*_list_device_arguments(device)) for module, device in accelerators]
    try:
        reseed(*devices)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for (module, device), state in zip(accelerators, states, strict=True):
            module.set_rng_state(state, *_list_device_arguments(device))


def reseed(*devices: torch.device) -> None:
    """Seed the generators of the CPU and these devices; call it inside of `isolated` only, which restores them."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.default_generator.manual_seed(SEED)
    for device in devices:
        if device.type not in ("cpu", "meta"):
            module = torch.get_device_module(device)
            with module.device(device) if hasattr(module, "device") else nullcontext():
                module.manual_seed(SEED)


def _list_device_arguments(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one MPS device, and its functions take no device


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


_IMMUTABLE = frozenset({bool, int, float, str, bytes, type(None), tuple, torch.Size, torch.dtype, torch.device})
"""Types of attributes that a forward pass cannot change in place."""

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""Names of attributes that every module has: flags, and dictionaries of hooks, parameters and children."""

_NON_PERSISTENT = "_non_persistent_buffers_set"
"""The only one of `_MODULE_ATTRIBUTES`, apart from the buffers, that registering a buffer in a forward pass changes."""


@contextmanager
def _isolate_attributes(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Switch modules to evaluation on copies of their attributes, and restore the originals afterwards.

    Each module gets a new ``__dict__`` for the pass and its original one afterwards, which the pass has not changed.
    Forward passes change tensors, buffers and containers (the state of metrics, for example) in place, so these are
    copied. Objects of other types are restored as references; what a pass changes inside of them stays changed.
    """
    originals = [(module, vars(module)) for module in modules]
    buffers = {id(b): b for _, attributes in originals for b in attributes["_buffers"].values() if b is not None}
    copies = {key: buffer.clone() for key, buffer in buffers.items()}  # one per buffer, also if modules share it
    try:
        for module, attributes in originals:
            isolated_attributes = {**attributes, "training": False, _NON_PERSISTENT: set(attributes[_NON_PERSISTENT])}
            for name, value in attributes.items():
                if name not in _MODULE_ATTRIBUTES and type(value) not in _IMMUTABLE:  # true for few attributes
                    isolated_attributes[name] = _copy_attribute(name, value)
            isolated_attributes["_buffers"] = {
                name: copies.get(id(buffer)) for name, buffer in attributes["_buffers"].items()
            }
            object.__setattr__(module, "__dict__", isolated_attributes)
        yield
    finally:
        for module, attributes in originals:
            object.__setattr__(module, "__dict__", attributes)


def _copy_attribute(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    # Names of PyTorch's own dictionaries, of hooks for example, begin with "_".
    is_container = isinstance(value, (list, set, deque)) or (isinstance(value, dict) and name[0] != "_")
    return copy.copy(value) if is_container else value


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
    """Restore `.grad` and `requires_grad` of parameters afterwards."""
    states = [(p, p.grad, p.requires_grad) for p in parameters]
    try:
        yield
    finally:
        for parameter, grad, requires_grad in states:
            if parameter.requires_grad is not requires_grad:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not grad:
                parameter.grad = grad


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
