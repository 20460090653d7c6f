"""The modules of a model by name, and hooks on them for one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Hook = Callable[[nn.Module, Any, Any], Any]

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def clean_name(name: str) -> str:
    """A module's name without what torch.compile, FSDP and activation checkpointing put in front of it.

    >>> clean_name("_orig_mod.layer4._fsdp_wrapped_module.1")
    'layer4.1'
    """
    if not any(wrapper in name for wrapper in _WRAPPERS):
        return name  # nearly all
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules inside ``model`` by name; where one is wrapped, the name is that of what is inside."""
    return {clean: module for name, module in model.named_modules() if (clean := clean_name(name))}


def find_layer(name: str, model: nn.Module) -> nn.Module | None:
    """``named_layers(model).get(name)``, without looking at all the others."""
    module = _unwrapped(model)
    for part in name.split("."):
        child = module._modules.get(part)
        if child is None:
            return None
        module = _unwrapped(child)
    return module


def _unwrapped(module: nn.Module) -> nn.Module:
    """What is inside of all wrappers."""
    while inside := next((module._modules[name] for name in _WRAPPERS if name in module._modules), None):
        module = inside
    return module


@contextmanager
def register_hooks(hooks: Sequence[tuple[Callable[[Hook], Any], Hook]]) -> Iterator[None]:
    """Inside, modules call these hooks: of each pair, the first registers the second."""
    handles = []
    try:
        for register, hook in hooks:
            handles.append(register(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_traceable(name: str, module: nn.Module) -> bool:
    """Not what computes weights, and not what takes no hooks."""
    return ".parametrizations." not in f".{name}." and not isinstance(module, torch.jit.ScriptModule)
