"""State that modules hold outside of their own attributes: in containers, objects, classes and function caches."""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from operator import is_
from types import FunctionType, NoneType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.random_state import seed_generator

IMMUTABLE = frozenset({bool, int, float, str, bytes, NoneType, tuple, torch.Size, torch.dtype, torch.device})
"""Types of values that a forward pass cannot change in place."""

_FRAMEWORKS = frozenset({"torch", "pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics"})
"""Packages whose objects do not hold the state of a model: the Trainer is one of them."""

_MAX_ITEMS = 256
"""Containers with more items hold data, such as file names: these items are not searched for further state."""

_MAX_CLONED_BYTES = 64 << 20
"""The memory for clones of tensors in containers and objects; larger tensors are data, such as images kept."""

_CONTAINERS = (OrderedDict, dict, list, set, deque)

_FunctionCache = type(functools.lru_cache(int))

_CLASS_STATE = (*_CONTAINERS, _FunctionCache, staticmethod, classmethod)
"""Types of attributes of a class that may hold state."""

_GLOBAL_CACHES: WeakKeyDictionary[type, list[Any]] = WeakKeyDictionary()
"""The function caches in the file that defines a class: files are long."""


class TensorClones:
    """Clones of tensors, one per tensor, so that what modules share stays shared."""

    def __init__(self) -> None:
        self._clones: dict[int, Tensor] = {}
        self._bytes = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the clone of a tensor."""
        clone = self._clones.get(id(tensor))
        if clone is None:
            clone = self._clones[id(tensor)] = tensor.clone()
        return clone

    def clone_held(self, tensor: Tensor) -> Tensor:
        """Return the clone of a tensor in a container; a parameter, or one that is too large, as it is."""
        if id(tensor) in self._clones:
            return self._clones[id(tensor)]
        if isinstance(tensor, nn.Parameter) or self._bytes + tensor.nbytes > _MAX_CLONED_BYTES:
            return tensor
        self._bytes += tensor.nbytes
        return self(tensor)


class HeldState:
    """Saves what objects hold, and restores it in place, since others refer to the same objects.

    Containers are searched, and so are objects and classes from the packages that define the model's modules, through
    what they hold in turn. Tensors in them are replaced by clones until `restore`. Generators of random numbers are
    seeded.

    Args:
        classes: The classes of the model's modules.
        clones: The clones of the model's tensors.
    """

    def __init__(self, classes: Iterable[type], clones: TensorClones) -> None:
        bases = {base for cls in classes for base in cls.__mro__}
        self._packages = {_find_package(cls) for cls in bases} - _FRAMEWORKS - sys.stdlib_module_names
        self._clones = clones
        self._pending: list[Any] = []
        self._seen: set[int] = set()
        self._undo = ExitStack()  # restores the rest, too, where an object does not let itself be restored
        for cls in bases:
            if _find_package(cls) in self._packages:
                self._save_class(cls)

    def add(self, value: Any) -> None:
        """Save a value, and what it holds, with the next `save`."""
        self._pending.append(value)

    def save(self) -> None:
        """Save all values that were added."""
        while self._pending:
            value = self._pending.pop()
            if id(value) in self._seen:
                continue
            self._seen.add(id(value))
            if isinstance(value, _CONTAINERS):
                self._save_container(value)
            elif isinstance(value, _FunctionCache):
                self._save_function_cache(value)
            elif (restore := seed_generator(value)) is not None:
                self._undo.callback(restore)
            elif _find_package(type(value)) in self._packages and not isinstance(value, (type, nn.Module)):
                self._save_container(getattr(value, "__dict__", {}))

    def restore(self) -> None:
        """Put everything back that was saved."""
        self._undo.close()

    def _save_container(self, container: Any) -> None:
        base = _find_container_type(container)
        saved = dict(container) if isinstance(container, dict) else base(container)
        self._undo.callback(_restore_container, container, saved)
        if isinstance(container, set) or len(container) > _MAX_ITEMS:
            return
        for key, item in list(saved.items() if isinstance(container, dict) else enumerate(saved)):
            if isinstance(item, Tensor):
                base.__setitem__(container, key, self._clones.clone_held(item))
            elif type(item) not in IMMUTABLE:
                self._pending.append(item)

    def _save_class(self, cls: type) -> None:
        """Save the attributes of a class, and what they and the globals next to the class hold."""
        attributes = dict(vars(cls))
        self._undo.callback(_restore_class, cls, attributes)
        containers = [v for v in attributes.values() if type(v) is not FunctionType and isinstance(v, _CLASS_STATE)]
        self._pending += [getattr(value, "__func__", value) for value in containers]
        if cls not in _GLOBAL_CACHES:
            values = vars(sys.modules[cls.__module__]).values() if cls.__module__ in sys.modules else ()
            _GLOBAL_CACHES[cls] = [value for value in values if type(value) is _FunctionCache]
        self._pending += _GLOBAL_CACHES[cls]

    def _save_function_cache(self, function: Any) -> None:
        """Clear a cache afterwards if it is empty now; single results cannot be removed."""
        if not function.cache_info().currsize:
            self._undo.callback(function.cache_clear)


def _find_package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _restore_container(container: Any, saved: Any) -> None:
    """Give a container the items it had; one that has not changed is not written to."""
    if isinstance(container, dict):
        if _are_identical(container, saved) and _are_identical(container.values(), saved.values()):
            return
    elif not isinstance(container, set) and _are_identical(container, saved):
        return
    base = _find_container_type(container)
    base.clear(container)
    base.extend(container, saved) if isinstance(container, (list, deque)) else base.update(container, saved)


def _find_container_type(container: Any) -> Any:
    """Return the built-in type of a container, whose methods are used: those of a subclass may refuse changes."""
    return next(base for base in _CONTAINERS if isinstance(container, base))


def _restore_class(cls: type, saved: dict[str, Any]) -> None:
    current = dict(vars(cls))
    if _are_identical(current, saved) and _are_identical(current.values(), saved.values()):
        return
    for name in current.keys() | saved.keys():
        if name.startswith("__"):  # what Python itself notes down
            continue
        if name not in saved:
            delattr(cls, name)
        elif name not in current or current[name] is not saved[name]:
            setattr(cls, name, saved[name])


def _are_identical(values: Collection[Any], saved: Collection[Any]) -> bool:
    """Return whether two collections hold the same objects in the same order."""
    return len(values) == len(saved) and all(map(is_, values, saved))
