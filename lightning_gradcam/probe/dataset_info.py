"""Normalization and class names from datasets and datamodules.

Attributes are read, never called, and no loader is iterated: either could draw random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_gradcam.probe.normalization import Normalization

_TRANSFORM_NAMES = re.compile(r"transform|norm|preproc|augment|compose", re.IGNORECASE)
"""Names of attributes that may hold transforms."""

_MAX_DEPTH = 12
_MAX_ELEMENTS = 64
"""Number of elements of a list that are searched."""


def find_normalization(holders: Sequence[Any]) -> tuple[Normalization | None, str]:
    """Find the first ``Normalize`` in datasets or datamodules; return its values and its location.

    Those of torchvision (both versions), albumentations and kornia are supported, also inside of ``Compose`` and
    wrapped datasets.

    >>> class Data:
    ...     def __init__(self):
    ...         from torchvision.transforms import v2
    ...         self.transform = v2.Compose([v2.Normalize([0.5], [0.25])])
    >>> find_normalization([Data()])
    (Normalization(mean=(0.5,), std=(0.25,)), 'Data.transform')
    """
    for holder in holders:
        for item, path in _walk_datasets_and_transforms(holder):
            normalization = _read_normalization(item)
            if normalization is not None:
                return normalization, path
    return None, ""


def find_class_names(holders: Sequence[Any]) -> tuple[list[str] | None, str]:
    """Find the first ``classes`` or ``class_names`` in datasets or datamodules; return the names and their location."""
    for holder in holders:
        for item, path in _walk_datasets_and_transforms(holder):
            for attribute in ("classes", "class_names"):
                names = getattr(type(item), attribute, None) or _get_attributes(item).get(attribute)
                if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
                    return list(names), f"{path}.{attribute}"
    return None, ""


def find_datasets(loaders: Any) -> list[Any]:
    """List the datasets of a Trainer's loaders: a single loader, a list, a mapping, or a CombinedLoader."""
    if isinstance(loaders, Mapping):
        return [dataset for loader in loaders.values() for dataset in find_datasets(loader)]
    if isinstance(loaders, (list, tuple)):
        return [dataset for loader in loaders for dataset in find_datasets(loader)]
    if hasattr(loaders, "flattened"):
        return find_datasets(loaders.flattened)
    dataset = getattr(loaders, "dataset", None)
    return [] if dataset is None else [dataset]


def _read_normalization(item: Any) -> Normalization | None:
    """Read the values of a ``Normalize``; None if the object is not one, or has unusual values."""
    if type(item).__name__ != "Normalize":
        return None
    values = vars(item) if hasattr(item, "mean") else getattr(item, "flags", None)  # kornia's are in `flags`
    if not isinstance(values, Mapping) or not {"mean", "std"} <= values.keys():
        return None
    mean, std = (torch.as_tensor(values[key], dtype=torch.float64).flatten().tolist() for key in ("mean", "std"))
    if len(mean) != len(std) or not all(s > 0 for s in std):
        return None
    return Normalization(tuple(mean), tuple(std))


def _get_attributes(item: Any) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = getattr(item, "__dict__", {})  # builtins have none
    return attributes


def _walk_datasets_and_transforms(holder: Any) -> Iterator[tuple[Any, str]]:
    """Yield an object and the datasets and transforms inside of it with their paths, the outermost first."""
    return _walk(holder, type(holder).__name__, _MAX_DEPTH, set())


def _walk(item: Any, path: str, depth: int, visited: set[int]) -> Iterator[tuple[Any, str]]:
    if depth == 0 or id(item) in visited:
        return
    visited.add(id(item))
    if isinstance(item, (list, tuple)):
        for element in item[:_MAX_ELEMENTS]:
            yield from _walk(element, path, depth - 1, visited)
        return
    yield item, path
    attributes = dict(_get_attributes(item))
    if isinstance(item, nn.Module):
        attributes.update(item._modules)
    for name, value in attributes.items():
        if isinstance(value, DataLoader):
            value = value.dataset
        is_dataset = isinstance(value, Dataset) or (name == "datasets" and isinstance(value, (list, tuple)))
        if is_dataset or _TRANSFORM_NAMES.search(name) or isinstance(item, (nn.Sequential, nn.ModuleList)):
            yield from _walk(value, path if name == "transforms" else f"{path}.{name}", depth - 1, visited)


def find_num_classes(holders: Sequence[Any]) -> int | None:
    """Find the number of classes in datasets or datamodules: ``num_classes``, or the number of class names.

    >>> class Data:
    ...     num_classes = 7
    >>> find_num_classes([Data()])
    7
    """
    names = find_class_names(holders)[0]
    if names is not None:
        return len(names)
    for holder in holders:
        for item, _ in _walk_datasets_and_transforms(holder):
            count = getattr(type(item), "num_classes", None) or _get_attributes(item).get("num_classes")
            if isinstance(count, int) and count > 1:
                return count
    return None
