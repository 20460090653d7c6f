"""Batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_gradcam.probe.probe import Probe

_Path: TypeAlias = tuple[str, ...]

_LABEL_NAMES = ("label", "labels", "target", "targets", "class", "classes", "y", "category")
_NEVER_LABELS = ("id", "ids", "idx", "index", "indices", "image_id")


def read_batch(batch: Any) -> Probe | None:
    """Find images and labels in a batch of any make: tensor, tuple, list, mapping, named tuple, dataclass, nested ones.

    Images are the first floating-point tensor of four or five dimensions, else the first uint8 one, else the only
    floating-point one of three. Labels are the classes of shape ``(N,)`` or ``(N, 1)`` called so, else the first ones
    behind the images, before them, or anywhere; where there are none, multi-label ones, ``(N, K)`` of zeros and ones,
    or masks of classes, ``(N, *spatial)``. Other tensors with N rows become ``extras`` under key or position; so do
    multi-label ones, which may be inputs.

    Returns:
        The batch as a `Probe` (sharing memory with it), or None where it has no images.

    >>> read_batch({"y": torch.tensor([3, 4]), "x": torch.rand(2, 3, 8, 8)}).labels
    tensor([3, 4])
    """
    leaves = list(_leaves(batch, ()))
    at = _find_images(leaves)
    if at is None:
        return None
    path, images = leaves[at]
    rest = [(p, t) for i, (p, t) in enumerate(leaves) if i != at and t.ndim and len(t) == len(images)]
    label, several = _find_labels(rest, path, _are_one_class_each), None
    if label is None:
        several = _find_labels(rest, path, _are_multilabel)
        labels = None if several is None else dict(rest)[several].long()
    else:
        labels = dict(rest)[label].reshape(len(images)).long()
    if labels is None:
        label, labels = _find_masks(rest, images)
    return Probe(images, labels=labels, extras={".".join(p): t for p, t in rest if p != label})


def _leaves(item: Any, path: _Path) -> Iterator[tuple[_Path, Tensor]]:
    if isinstance(item, Tensor):
        yield path, item
        return
    inside: Sequence[tuple[str, Any]] = ()
    if isinstance(item, Mapping):
        inside = [(str(key), value) for key, value in item.items()]
    elif is_dataclass(item) and not isinstance(item, type):
        inside = [(f.name, getattr(item, f.name)) for f in fields(item)]
    elif isinstance(item, tuple) and hasattr(item, "_fields"):
        inside = list(zip(item._fields, item, strict=True))
    elif isinstance(item, (tuple, list)):
        inside = [(str(i), value) for i, value in enumerate(item)]
    for name, value in inside:
        yield from _leaves(value, (*path, name))


def _find_images(leaves: Sequence[tuple[_Path, Tensor]]) -> int | None:
    for dimensions, floating in (((4, 5), True), ((4, 5), False), ((3,), True)):
        found = [
            i
            for i, (_, tensor) in enumerate(leaves)
            if (tensor.is_floating_point() if floating else tensor.dtype == torch.uint8)
            and tensor.ndim in dimensions
            and tensor.numel()
        ]
        # Several of three dimensions are single images, as detection has them, and no batch.
        if found and (dimensions != (3,) or len(found) == 1):
            return found[0]
    return None


def _find_labels(rest: Sequence[tuple[_Path, Tensor]], images: _Path, suit: Callable[[Tensor], bool]) -> _Path | None:
    candidates = [path for path, tensor in rest if suit(tensor) and not (path and path[-1].lower() in _NEVER_LABELS)]

    def rank(path: _Path) -> tuple[bool, bool, bool]:
        before = images[:-1] == path[:-1] and path[-1:] < images[-1:] and path[-1].isdigit()
        return path[:-1] != images[:-1], path[-1].lower() not in _LABEL_NAMES, before

    return min(candidates, key=rank, default=None)


def _are_one_class_each(tensor: Tensor) -> bool:
    return (tensor.ndim == 1 or (tensor.ndim == 2 and tensor.shape[1] == 1)) and _are_classes(tensor)


def _are_multilabel(tensor: Tensor) -> bool:
    """A 0 or 1 for each class. (Waits for the device.)"""
    several = tensor.ndim == 2 and tensor.shape[1] > 1 and not tensor.is_complex()
    return several and bool(((tensor == 0) | (tensor == 1)).all())


def _find_masks(rest: Sequence[tuple[_Path, Tensor]], images: Tensor) -> tuple[_Path | None, Tensor | None]:
    """The first masks of classes, one for each pixel, ``(N, *spatial)``; (None, None) where there are none."""
    sizes = (images.shape[2:], (1, *images.shape[2:]))
    for path, tensor in rest:
        if images.ndim > 3 and tensor.shape[1:] in sizes and (tensor.dtype == torch.bool or _are_classes(tensor)):
            return path, tensor.reshape(len(images), *images.shape[2:]).long()
    return None, None


def _are_classes(tensor: Tensor) -> bool:
    """Integers, or the 0.0 and 1.0 that binary cross-entropy takes. (Waits for the device where they are floating.)"""
    if tensor.is_floating_point():
        return bool(((tensor == 0) | (tensor == 1)).all())
    return not tensor.is_complex() and tensor.dtype != torch.bool
