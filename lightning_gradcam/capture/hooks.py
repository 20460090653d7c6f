"""The modules of a model by name, and temporary hooks on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Hook = Callable[[nn.Module, Any, Any], Any]

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def clean_name(name: str) -> str:
    """Strip the names of wrappers (torch.compile, FSDP, activation checkpointing) from a module's name.

    >>> clean_name("_orig_mod.layer4._fsdp_wrapped_module.1")
    'layer4.1'
    """
    if not any(wrapper in name for wrapper in _WRAPPERS):
        return name  # the common case
    return ".".join(child for child in name.split(".") if child not in _WRAPPERS)


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules inside ``model`` by name; a wrapper is listed under the name of the module that it wraps."""
    return {clean: module for name, module in model.named_modules() if (clean := clean_name(name))}


def find_layer(name: str, model: nn.Module) -> nn.Module | None:
    """Return ``named_layers(model).get(name)`` without listing all modules."""
    module = _unwrap(model)
    for child_name in name.split("."):
        child = module._modules.get(child_name)
        if child is None:
            return None
        module = _unwrap(child)
    return module


def _unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside all wrappers."""
    while wrapped := next((module._modules[name] for name in _WRAPPERS if name in module._modules), None):
        module = wrapped
    return module


@contextmanager
def register_hooks(hooks: Sequence[tuple[Callable[[Hook], Any], Hook]]) -> Iterator[None]:
    """Register hooks, and remove them afterwards; in each pair, the first function registers the second."""
    handles = []
    try:
        for register, hook in hooks:
            handles.append(register(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_traceable(name: str, module: nn.Module) -> bool:
    """Return whether a module supports hooks and computes activations, not parametrized weights."""
    return ".parametrizations." not in f".{name}." and not isinstance(module, torch.jit.ScriptModule)
