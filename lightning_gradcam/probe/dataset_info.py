"""What the user's data and module say by themselves: normalisation, class names, and which child is the model.

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

_WORTH_A_LOOK = re.compile(r"transform|norm|preproc|augment|compose", re.IGNORECASE)
_DEPTH = 12


def find_normalization(holders: Sequence[Any]) -> tuple[Normalization | None, str]:
    """The mean and standard deviation of the first ``Normalize`` in datasets or datamodules, and where it was.

    torchvision's (both versions), albumentations' and kornia's are read, also inside ``Compose`` and wrapped datasets.

    >>> class Data:
    ...     def __init__(self):
    ...         from torchvision.transforms import v2
    ...         self.transform = v2.Compose([v2.Normalize([0.5], [0.25])])
    >>> find_normalization([Data()])
    (Normalization(mean=(0.5,), std=(0.25,)), 'Data.transform')
    """
    for holder in holders:
        for item, path in _walk(holder, type(holder).__name__, _DEPTH, set()):
            if type(item).__name__ == "Normalize":
                values = getattr(item, "flags", None) if not hasattr(item, "mean") else vars(item)
                if isinstance(values, Mapping) and {"mean", "std"} <= values.keys():
                    mean, std = (
                        torch.as_tensor(values[k], dtype=torch.float64).flatten().tolist() for k in ("mean", "std")
                    )
                    if len(mean) == len(std) and all(s > 0 for s in std):
                        return Normalization(tuple(mean), tuple(std)), path
    return None, ""


def find_class_names(holders: Sequence[Any]) -> tuple[list[str] | None, str]:
    """The names in the first ``classes`` or ``class_names`` of datasets or datamodules, and where they were."""
    for holder in holders:
        for item, path in _walk(holder, type(holder).__name__, _DEPTH, set()):
            for attribute in ("classes", "class_names"):
                names = getattr(type(item), attribute, None) or _attributes(item).get(attribute)
                if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
                    return list(names), f"{path}.{attribute}"
    return None, ""


def find_datasets(loaders: Any) -> list[Any]:
    """The datasets behind what a Trainer holds as loaders: one, a list, a mapping, or a CombinedLoader."""
    if isinstance(loaders, Mapping):
        return [d for loader in loaders.values() for d in find_datasets(loader)]
    if isinstance(loaders, (list, tuple)):
        return [d for loader in loaders for d in find_datasets(loader)]
    if hasattr(loaders, "flattened"):
        return find_datasets(loaders.flattened)
    dataset = getattr(loaders, "dataset", None)
    return [] if dataset is None else [dataset]


def _attributes(item: Any) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = getattr(item, "__dict__", {})  # builtins have none
    return attributes


def _walk(item: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[Any, str]]:
    """``item`` and what is worth a look inside it, outside in."""
    if depth == 0 or id(item) in seen:
        return
    seen.add(id(item))
    if isinstance(item, (list, tuple)):
        for element in item[:64]:
            yield from _walk(element, path, depth - 1, seen)
        return
    yield item, path
    attributes = dict(_attributes(item))
    if isinstance(item, nn.Module):
        attributes.update(item._modules)
    for name, value in attributes.items():
        if isinstance(value, DataLoader):
            value = value.dataset
        nested = isinstance(value, Dataset) or (name == "datasets" and isinstance(value, (list, tuple)))
        if nested or _WORTH_A_LOOK.search(name) or isinstance(item, (nn.Sequential, nn.ModuleList)):
            yield from _walk(value, path if name == "transforms" else f"{path}.{name}", depth - 1, seen)
