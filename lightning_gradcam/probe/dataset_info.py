"""Normalization and class names from datasets and datamodules.

Attributes are read, never called, and no loader is iterated: either could draw random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_gradcam.probe.normalization import Normalization

_TRANSFORM_NAMES = re.compile(r"transform|norm|proc|aug|compose|extractor", re.IGNORECASE)
"""Names of attributes that may hold transforms."""

_MAX_DEPTH = 12
_MAX_ELEMENTS = 64
"""Number of elements of a list that are searched."""


def find_normalization(holders: Sequence[Any]) -> tuple[Normalization | None, str]:
    """Find the first normalization in datasets or datamodules; return its values and its location.

    Supported are the ``Normalize`` of torchvision (both versions), albumentations and kornia, torchvision's presets
    and the image processors of transformers, also inside of ``Compose`` and wrapped datasets.

    >>> class Data:
    ...     def __init__(self):
    ...         from torchvision.transforms import v2
    ...         self.transform = v2.Compose([v2.Normalize([0.5], [0.25])])
    >>> find_normalization([Data()])
    (Normalization(mean=(0.5,), std=(0.25,)), 'Data.transform')
    """
    for holder in holders:
        for item, path in walk_datasets_and_transforms(holder):
            normalization = _read_normalization(item)
            if normalization is not None:
                return normalization, path
    return None, ""


def find_class_names(holders: Sequence[Any]) -> tuple[list[str] | None, str]:
    """Find the first ``classes`` or ``class_names`` in datasets or datamodules; return the names and their location."""
    for holder in holders:
        for item, path in walk_datasets_and_transforms(holder):
            for attribute in ("classes", "class_names"):
                names = get_attribute(item, attribute)
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


def find_model_normalization(model: nn.Module, images: Tensor) -> tuple[Normalization | None, str]:
    """Find the normalization that a model was trained with, if it gives pixels in [0, 1]; return its location, too.

    This is weaker evidence than a transform: the data may not follow it. Supported are the configurations of timm
    (``pretrained_cfg``), and image processors that a module holds. (Waits for the device if there is one.)

    Args:
        model: The model.
        images: ``(N, C, *spatial)`` its inputs, which must be negative somewhere.
    """
    for name, module in model.named_modules():
        for attribute, value in _get_attributes(module).items():
            is_config = attribute in ("pretrained_cfg", "default_cfg")
            values = value if isinstance(value, Mapping) else _get_attributes(value)
            keys = ("mean", "std") if is_config else ("image_mean", "image_std")
            normalization = _parse_statistics(values, *keys)
            if normalization is not None and normalization.fits(images):
                return normalization, ".".join(filter(None, (type(model).__name__, name, attribute)))
    return None, ""


def _read_normalization(item: Any) -> Normalization | None:
    """Read the values of a transform that normalizes; None if the object is not one, or has unusual values."""
    values = _get_attributes(item)
    if {"image_mean", "image_std"} <= values.keys():  # an image processor of transformers
        return _parse_statistics(values, "image_mean", "image_std") if values.get("do_normalize", True) else None
    is_preset = {"mean", "std", "crop_size"} <= values.keys() or {"mean", "std", "resize_size"} <= values.keys()
    if type(item).__name__ != "Normalize" and not is_preset:
        return None
    if "mean" not in values:  # kornia's augmentation keeps them in `flags`, and its function in buffers
        flags = values.get("flags")
        values = flags if isinstance(flags, Mapping) else getattr(item, "_buffers", {})
    return _parse_statistics(values, "mean", "std")


def _parse_statistics(values: Mapping[str, Any], mean_key: str, std_key: str) -> Normalization | None:
    """Return the normalization with a mean and std of a mapping; None if it lacks them or they are unusual."""
    if values.get(mean_key) is None or values.get(std_key) is None:
        return None
    try:
        mean, std = (
            torch.as_tensor(values[key], dtype=torch.float64).flatten().tolist() for key in (mean_key, std_key)
        )
    except (TypeError, ValueError, RuntimeError):  # other things than numbers
        return None
    if not mean or len(mean) != len(std) or not all(s > 0 for s in std):
        return None
    return Normalization(tuple(mean), tuple(std))


def get_attribute(item: Any, name: str) -> Any:
    """Return an attribute of an object or its class without calling a property."""
    value = _get_attributes(item).get(name)
    return value if value is not None else next((vars(c)[name] for c in type(item).__mro__ if name in vars(c)), None)


def _get_attributes(item: Any) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = getattr(item, "__dict__", {})  # builtins have none
    return attributes


def walk_datasets_and_transforms(holder: Any) -> Iterator[tuple[Any, str]]:
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
        for item, _ in walk_datasets_and_transforms(holder):
            count = getattr(type(item), "num_classes", None) or _get_attributes(item).get("num_classes")
            if isinstance(count, int) and count > 1:
                return count
    return None
