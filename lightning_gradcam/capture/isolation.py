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
    cache, and the fast path of `nn.TransformerEncoder`, which skips inner hooks. Inside, grad and inference mode are
    off, compiled code runs eagerly, since hooks do not fire in it, and reentrant activation checkpointing is passed
    through.
    """
    modules = _all_modules(model)
    parameters = list({id(p): p for m in modules for p in m._parameters.values() if p is not None}.values())
    kinds = {type(module) for module in modules}  # some ten: to ask every module takes longer
    has_scripts = any(issubclass(kind, torch.jit.ScriptModule) for kind in kinds)
    scripted = [module for module in modules if isinstance(module, torch.jit.ScriptModule)] if has_scripts else []
    eager = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)] if scripted else modules
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_random_state(parameters))
        stack.enter_context(_switches(fast=not any(issubclass(kind, _SKIPPING) for kind in kinds)))
        if "torch._dynamo" in sys.modules:  # something was compiled: a module, or a function that one of them calls
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_attributes(eager))
        stack.enter_context(_scripts(scripted))
        stack.enter_context(_gradients(parameters))
        yield


def _all_modules(model: nn.Module) -> list[nn.Module]:
    """As `model.modules()`, in another order and several times as fast."""
    found: dict[nn.Module, None] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            waiting += [child for child in module._modules.values() if child is not None]
    return list(found)


@contextmanager
def _random_state(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    devices = sorted({d for d in {p.device for p in parameters} if d.type not in ("cpu", "meta")}, key=str)
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


_SKIPPING = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
"""Modules whose fast path skips hooks of those inside; that of `nn.MultiheadAttention` by itself passes none by."""


@contextmanager
def _switches(fast: bool) -> Iterator[None]:
    fastpath, cache = torch.backends.mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()
    checkpointed = checkpoint.CheckpointFunction
    try:
        checkpoint.CheckpointFunction = _NotCheckpointed  # type: ignore[misc, assignment]  # for the pass
        torch.backends.mha.set_fastpath_enabled(fastpath and fast)
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

_PYTORCHS = frozenset(vars(nn.Module()))
"""Names of attributes that every module has: flags, and dictionaries of hooks, parameters and children."""

_NON_PERSISTENT = "_non_persistent_buffers_set"
"""The one of them, besides the buffers, that a forward pass may fill: where it registers one."""


@contextmanager
def _attributes(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Switch to evaluation; every attribute, flags and buffers among them, that a forward pass sets or fills is a copy.

    Each module gets a dictionary of its own for the pass, and then its old one, which nothing has touched. Tensors and
    containers (the state of metrics, say) are filled in place, so they are copied, too; objects of other kinds are put
    back, but not what they hold.
    """
    originals = [(module, vars(module)) for module in modules]
    buffers = {id(b): b for _, attributes in originals for b in attributes["_buffers"].values() if b is not None}
    copies = {key: buffer.clone() for key, buffer in buffers.items()}  # one for each, also where modules share it
    try:
        for module, attributes in originals:
            own = {**attributes, "training": False, _NON_PERSISTENT: set(attributes[_NON_PERSISTENT])}
            for name, value in attributes.items():
                if name not in _PYTORCHS and type(value) not in _PLAIN:  # which are nearly all
                    own[name] = _copied(name, value)
            own["_buffers"] = {name: copies.get(id(buffer)) for name, buffer in attributes["_buffers"].items()}
            object.__setattr__(module, "__dict__", own)
        yield
    finally:
        for module, attributes in originals:
            object.__setattr__(module, "__dict__", attributes)


def _copied(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    containers = isinstance(value, (list, set, deque)) or (isinstance(value, dict) and name[0] != "_")
    return copy.copy(value) if containers else value  # PyTorch's own dictionaries, of hooks say, begin with "_"


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
def fill_zero_parameters(model: nn.Module) -> Iterator[None]:
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
