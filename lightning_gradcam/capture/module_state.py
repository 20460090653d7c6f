"""The state of modules: attributes, hooks, children and parameters, exchanged or saved for a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from torch import Tensor, nn

from lightning_gradcam.capture.held_state import IMMUTABLE, HeldState, TensorClones

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""Names of attributes that every module has: flags, and dictionaries of hooks, parameters, buffers and children."""

_NON_PERSISTENT = "_non_persistent_buffers_set"

_list_registries = itemgetter(
    *(n for n, value in vars(nn.Module()).items() if isinstance(value, dict) and n not in ("_buffers", "_parameters"))
)
"""Return a module's dictionaries of hooks and children from its attributes; handles of hooks refer to these."""

_NO_ENTRIES: list[dict[Any, Any]] = [{} for _ in _list_registries(vars(nn.Module()))]


@contextmanager
def isolate_modules(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Switch modules to evaluation on copies of their tensors, and restore afterwards what the modules hold.

    Each module gets a new ``__dict__`` for the pass, with clones of its buffers and other tensors, and its original one
    afterwards, which the pass has not changed. What others may refer to is restored in place:

    - dictionaries of hooks and children: a pass that installs hooks also sets an attribute that says so, and both are
      undone together;
    - parameters that the pass added, removed or replaced, and the classes of modules;
    - the state that is found from there, see `HeldState`. Other objects are restored as references; what a pass changes
      inside of them stays changed.
    """
    originals = [(module, vars(module), type(module)) for module in modules]
    registries = [_list_registries(attributes) for _, attributes, _ in originals]
    entries = [[registry.copy() for registry in group] if any(group) else _NO_ENTRIES for group in registries]
    parameters = [attributes["_parameters"].copy() for _, attributes, _ in originals]
    clones = TensorClones()
    held_state = HeldState({cls for _, _, cls in originals}, clones)
    try:
        for module, attributes, _ in originals:
            object.__setattr__(module, "__dict__", _create_attributes(attributes, clones, held_state))
        held_state.save()
        yield
    finally:
        try:
            held_state.restore()
        finally:
            for (module, attributes, cls), saved in zip(originals, parameters, strict=True):
                if type(module) is not cls:
                    object.__setattr__(module, "__class__", cls)
                object.__setattr__(module, "__dict__", attributes)
                _restore_parameters(attributes, saved)
            for group, saved_entries in zip(registries, entries, strict=True):
                if any(group) or saved_entries is not _NO_ENTRIES:
                    _restore_registries(group, saved_entries)


def _create_attributes(attributes: Mapping[str, Any], clones: TensorClones, held_state: HeldState) -> dict[str, Any]:
    """Return a module's attributes for the pass; what may change inside of them is added to ``held_state``."""
    isolated_attributes = {**attributes, "training": False, _NON_PERSISTENT: set(attributes[_NON_PERSISTENT])}
    for name, value in attributes.items():
        if name not in _MODULE_ATTRIBUTES and type(value) not in IMMUTABLE:  # true for few attributes
            if isinstance(value, Tensor):
                isolated_attributes[name] = clones(value)
            else:
                held_state.add(value)
    isolated_attributes["_buffers"] = {
        name: None if buffer is None else clones(buffer) for name, buffer in attributes["_buffers"].items()
    }
    return isolated_attributes


def _restore_registries(registries: Sequence[dict[Any, Any]], saved: Sequence[dict[Any, Any]]) -> None:
    for registry, entries in zip(registries, saved, strict=True):
        if registry != entries:
            registry.clear()
            registry.update(entries)


def _restore_parameters(attributes: Mapping[str, Any], saved: Mapping[str, nn.Parameter | None]) -> None:
    """Restore which parameters a module has; which of their shards a strategy has gathered is its own matter."""
    parameters = attributes["_parameters"]
    is_same = len(parameters) == len(saved) and all(parameters.get(name, ...) is p for name, p in saved.items())
    if is_same or attributes.get("_is_fsdp_managed_module", False):
        return
    sharded = {name: p for name, p in parameters.items() if name in saved and _is_sharded(p, saved[name])}
    parameters.clear()
    parameters.update({**saved, **sharded})


def _is_sharded(*parameters: Tensor | None) -> bool:
    return any(hasattr(p, "_is_flat_param") or type(p).__module__.startswith("torch.distributed") for p in parameters)
