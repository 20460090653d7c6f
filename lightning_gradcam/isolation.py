"""Leaves a model, and the process, as they were found."""

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
"""Random numbers inside a pass start here, so that the same weights give the same map."""

_NOISE = 0.02


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Inside, the model evaluates on copies of its buffers; afterwards nothing shows that it was used.

    Held, also after an exception: every attribute of every module, the train flag among them (set as an attribute:
    `train` and `eval` are methods that models override), buffers, `.grad` and `requires_grad` of parameters, the random
    state of PyTorch (CPU and the model's devices), NumPy and Python, grad and inference mode, the autocast weight
    cache, and the fast path of `nn.MultiheadAttention`, which skips inner hooks. Inside, grad and inference mode are
    off, compiled code runs eagerly, since hooks do not fire in it, and reentrant activation checkpointing is passed
    through.
    """
    modules = list(model.modules())
    parameters = list(dict.fromkeys(p for m in modules for p in m._parameters.values() if p is not None))
    scripted = [module for module in modules if isinstance(module, torch.jit.ScriptModule)]
    eager = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_random_state(parameters))
        stack.enter_context(_switches())
        if "torch._dynamo" in sys.modules:  # something was compiled: a module, or a function that one of them calls
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_attributes(eager))
        stack.enter_context(_scripts(scripted))
        stack.enter_context(_gradients(parameters))
        stack.enter_context(_buffers(eager))
        yield


@contextmanager
def _random_state(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    devices = sorted({p.device for p in parameters if p.device.type not in ("cpu", "meta")}, key=str)
    accelerators = [(torch.get_device_module(device), device) for device in devices]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    states = [module.get_rng_state(*_index(device)) for module, device in accelerators]
    try:
        reseed(*devices)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for (module, device), state in zip(accelerators, states, strict=True):
            module.set_rng_state(state, *_index(device))


def reseed(*devices: torch.device) -> None:
    """Random numbers start anew, on the CPU and on these devices; only inside of `isolated`, which puts them back."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.default_generator.manual_seed(SEED)
    for device in devices:
        if device.type not in ("cpu", "meta"):
            module = torch.get_device_module(device)
            with module.device(device) if hasattr(module, "device") else nullcontext():
                module.manual_seed(SEED)


def _index(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one MPS device, and its functions name none


@contextmanager
def _switches() -> Iterator[None]:
    fastpath, cache = torch.backends.mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()
    checkpointed = checkpoint.CheckpointFunction
    try:
        checkpoint.CheckpointFunction = _NotCheckpointed  # type: ignore[misc, assignment]  # for the pass
        torch.backends.mha.set_fastpath_enabled(False)
        # A weight cast without grad must not be found in the cache by a training step of the same autocast region.
        torch.set_autocast_cache_enabled(False)
        yield
    finally:
        checkpoint.CheckpointFunction = checkpointed  # type: ignore[misc]  # as it was
        torch.backends.mha.set_fastpath_enabled(fastpath)
        torch.set_autocast_cache_enabled(cache)


class _NotCheckpointed:
    """Reentrant activation checkpointing, passed through: its backward serves no `torch.autograd.grad`."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve_random_state: bool, *args: Any) -> Any:
        return function(*args)


_PLAIN = frozenset({bool, int, float, str, bytes, type(None), tuple, torch.Size, torch.dtype, torch.device})
"""Kinds of attributes that no pass fills in place."""

_PYTORCHS = vars(nn.Module()).keys() - {"_non_persistent_buffers_set"}
"""Names of attributes that every module has: flags, and dictionaries of hooks, parameters and children."""


@contextmanager
def _attributes(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Switch to evaluation, and put back every attribute, flags among them, that a forward pass sets or fills.

    Tensors and containers (the state of metrics, say) are filled in place, so the pass works on copies of them; objects
    of other kinds are put back, but not what they hold. To pass quickly by what needs no copy, which is nearly all,
    saves a twentieth of a small model's pass.
    """
    found = [(module, dict(vars(module))) for module in modules]
    try:
        for module, attributes in found:
            for name in attributes.keys() - _PYTORCHS:
                value = attributes[name]
                if type(value) in _PLAIN:
                    continue
                if isinstance(value, torch.Tensor):
                    vars(module)[name] = value.clone()
                elif type(value) is set:  # every module has one
                    vars(module)[name] = value.copy()
                elif isinstance(value, (list, set, deque)) or (isinstance(value, dict) and name[0] != "_"):
                    vars(module)[name] = copy.copy(value)  # PyTorch's own dictionaries, of hooks say, begin with "_"
            object.__setattr__(module, "training", False)  # that of `nn.Module` looks for tensors first
        yield
    finally:
        for module, attributes in found:
            vars(module).clear()
            vars(module).update(attributes)


@contextmanager
def _scripts(modules: Sequence[torch.jit.ScriptModule]) -> Iterator[None]:
    """TorchScript keeps attributes and buffers out of reach, so these are written back."""
    found = [(module, module.training, [(b, b.clone()) for b in module.buffers(recurse=False)]) for module in modules]
    try:
        for module, _, _ in found:
            module.training = False
        yield
    finally:
        for module, training, buffers in found:
            module.training = training
            for buffer, value in buffers:
                buffer.data.copy_(value)  # `data`, whose version is its own


@contextmanager
def _gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    found = [(p, p.grad, p.requires_grad) for p in parameters]
    try:
        yield
    finally:
        for parameter, grad, requires_grad in found:
            if parameter.requires_grad is not requires_grad:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not grad:
                parameter.grad = grad


@contextmanager
def _buffers(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put copies in the place of buffers: the originals keep their values, their versions and their identity."""
    found = [(module, dict(module._buffers)) for module in modules]
    originals = {id(b): b for _, buffers in found for b in buffers.values() if b is not None}
    copies = {key: buffer.clone() for key, buffer in originals.items()}  # one for each, also where modules share it
    try:
        for module, buffers in found:
            module._buffers.update({name: copies[id(b)] for name, b in buffers.items() if b is not None})
        yield
    finally:
        for module, buffers in found:
            if module._buffers or buffers:
                module._buffers.clear()
                module._buffers.update(buffers)


@contextmanager
def filled(model: nn.Module) -> Iterator[None]:
    """Inside, parameters that are zero throughout hold small noise: a gradient goes through what starts with zeros.

    These are heads, residual branches and their scales. Sharded parameters stay as they are. To be used inside of
    `isolated`, which puts the random state back.
    """
    zero = [
        (module._parameters, name, parameter)
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule) and not getattr(module, "_is_fsdp_managed_module", False)
        for name, parameter in module._parameters.items()
        if type(parameter) is nn.Parameter
        and not hasattr(parameter, "_is_flat_param")  # a DTensor has a type of its own
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
    """Inside, parameters want no gradient: where only images do, nothing is kept for those of the weights.

    Sharded parameters stay as they are, and so do matrices: with a weight that wants no gradient, PyTorch multiplies
    batch by batch, which adds a third to a Vision Transformer's time.
    """
    free = [p for p in model.parameters() if type(p) is nn.Parameter and p.requires_grad and p.is_leaf and p.ndim != 2]
    free = [p for p in free if not hasattr(p, "_is_flat_param")]
    try:
        for parameter in free:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)
