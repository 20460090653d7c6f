"""Detection of images and labels in batches of any structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_gradcam.probe.image_lists import NEVER_LABELS, find_image_list, holds_boxes
from lightning_gradcam.probe.probe import Probe

_Path: TypeAlias = tuple[str, ...]
"""The keys and positions that lead to a tensor in a batch."""

_Leaf: TypeAlias = tuple[_Path, Tensor]

_LABEL_NAMES = ("label", "labels", "target", "targets", "class", "classes", "y", "category")


def read_batch(batch: Any) -> Probe | None:
    """Find the images and labels in a batch: a tensor, tuple, list, mapping, named tuple, dataclass, or nested ones.

    Images are the first floating-point tensor of four or five dimensions, else the first uint8 one, else the only
    floating-point one of three. Labels are classes of shape ``(N,)`` or ``(N, 1)``: those with a usual name for labels,
    else the first after the images, before them, or anywhere. Without these, labels are multi-label ones, ``(N, K)`` of
    zeros and ones, or class masks, ``(N, *spatial)``. Other tensors with N rows become ``extras`` under their key or
    position, and so do multi-label ones, which may be inputs of the model. The classes of boxes are not labels.

    Returns:
        The batch as a `Probe` (sharing memory with it), or None if it has no images. Of a list of images of several
        sizes, those of the most frequent size.

    >>> read_batch({"y": torch.tensor([3, 4]), "x": torch.rand(2, 3, 8, 8)}).labels
    tensor([3, 4])
    """
    return next((probe for probe, _ in read_labeled_probes(batch)), None)


def read_labeled_probes(batch: Any) -> Iterator[tuple[Probe, str]]:
    """Yield what `read_batch` finds, and the labels' name: their keys and positions.

    Of a list of images of several sizes, there is a probe for each size.
    """
    leaves = list(_list_leaves(batch, ()))
    index = _find_images(leaves)
    if index is None or leaves[index][1].ndim == 3:
        image_list = find_image_list(batch)
        if image_list is not None:
            yield from ((Probe(images, labels=labels), "") for images, labels in image_list.group_by_size())
            return
    if index is not None:
        yield _read_leaves(leaves, index)


def _read_leaves(leaves: Sequence[_Leaf], index: int) -> tuple[Probe, str]:
    """Return the probe of the images at this index, with the labels and extras among the other tensors."""
    images_path, images = leaves[index]
    candidates = [
        (path, tensor)
        for i, (path, tensor) in enumerate(leaves)
        if i != index and tensor.ndim and len(tensor) == len(images)
    ]
    path, labels, is_extra = _find_labels(candidates, images_path, images)
    extras = {".".join(p): tensor for p, tensor in candidates if p != path or is_extra}
    return Probe(images, labels=labels, extras=extras), ".".join(path or ())


def _list_leaves(item: Any, path: _Path) -> Iterator[_Leaf]:
    """Yield all tensors in a batch with their paths, without the boxes and classes of single images."""
    if isinstance(item, Tensor):
        yield path, item
        return
    if isinstance(item, (tuple, list)) and item and all(map(holds_boxes, item)):
        return
    children: Sequence[tuple[str, Any]] = ()
    if isinstance(item, Mapping):
        children = [(str(key), value) for key, value in item.items()]
    elif is_dataclass(item) and not isinstance(item, type):
        children = [(f.name, getattr(item, f.name)) for f in fields(item)]
    elif isinstance(item, tuple) and hasattr(item, "_fields"):
        children = list(zip(item._fields, item, strict=True))
    elif isinstance(item, (tuple, list)):
        children = [(str(i), value) for i, value in enumerate(item)]
    for name, value in children:
        yield from _list_leaves(value, (*path, name))


def _find_images(leaves: Sequence[_Leaf]) -> int | None:
    """Return the index of the images; None if there are none."""
    for dimensions, is_floating in (((4, 5), True), ((4, 5), False), ((3,), True)):
        indices = [
            i
            for i, (_, tensor) in enumerate(leaves)
            if (tensor.is_floating_point() if is_floating else tensor.dtype == torch.uint8)
            and tensor.ndim in dimensions
            and tensor.numel()
        ]
        # Several tensors of three dimensions are single images, as in detection, and not a batch.
        if indices and (dimensions != (3,) or len(indices) == 1):
            return indices[0]
    return None


def _find_labels(
    candidates: Sequence[_Leaf], images_path: _Path, images: Tensor
) -> tuple[_Path | None, Tensor | None, bool]:
    """Return the path and the values of the labels, and whether the tensor also belongs to the extras."""
    path = _find_path(candidates, images_path, _are_single_classes)
    if path is not None:
        return path, dict(candidates)[path].reshape(len(images)).long(), False
    path = _find_path(candidates, images_path, _are_multilabel)
    if path is not None:
        return path, dict(candidates)[path].long(), True
    return *_find_masks(candidates, images), False


def _find_path(candidates: Sequence[_Leaf], images_path: _Path, are_labels: Callable[[Tensor], bool]) -> _Path | None:
    """Return the path of the likeliest labels among tensors; None if there are none."""
    paths = [
        path for path, tensor in candidates if are_labels(tensor) and not (path and path[-1].lower() in NEVER_LABELS)
    ]

    def rank(path: _Path) -> tuple[bool, bool, bool, bool]:
        is_flag = dict(candidates)[path].dtype == torch.bool  # rather than a class
        is_nested_elsewhere = path[:-1] != images_path[:-1]
        is_before_images = not is_nested_elsewhere and path[-1:] < images_path[-1:] and path[-1].isdigit()
        return is_nested_elsewhere, path[-1].lower() not in _LABEL_NAMES, is_flag, is_before_images

    return min(paths, key=rank, default=None)


def _are_single_classes(tensor: Tensor) -> bool:
    """Return whether a tensor has one class per row, ``(N,)`` or ``(N, 1)``. (May wait for the device.)"""
    return (tensor.ndim == 1 or (tensor.ndim == 2 and tensor.shape[1] == 1)) and _are_classes(tensor)


def _are_multilabel(tensor: Tensor) -> bool:
    """Return whether a tensor has a 0 or 1 for each class. (Waits for the device.)"""
    is_matrix = tensor.ndim == 2 and tensor.shape[1] > 1 and not tensor.is_complex()
    return is_matrix and bool(((tensor == 0) | (tensor == 1)).all())


def _find_masks(candidates: Sequence[_Leaf], images: Tensor) -> tuple[_Path | None, Tensor | None]:
    """Return the path and the values of the first class masks, ``(N, *spatial)``; (None, None) if there are none."""
    sizes = (images.shape[2:], (1, *images.shape[2:]))
    for path, tensor in candidates:
        if images.ndim > 3 and tensor.shape[1:] in sizes and (tensor.dtype == torch.bool or _are_classes(tensor)):
            return path, tensor.reshape(len(images), *images.shape[2:]).long()
    return None, None


def _are_classes(tensor: Tensor) -> bool:
    """Return whether all are integers, or the 0.0 and 1.0 of binary cross-entropy. (Floats wait for the device.)"""
    if tensor.is_floating_point():
        return bool(((tensor == 0) | (tensor == 1)).all())
    return not tensor.is_complex()
