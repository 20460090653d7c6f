"""Images in lists, of one or several sizes, with their targets: the batches of detectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

_CHANNELS = (1, 3, 4)
"""Numbers of channels of images in lists; a list of signals, ``(N, C, L)`` each, has another first dimension mostly."""

NEVER_LABELS = ("id", "ids", "idx", "index", "indices", "image_id")
"""Names of integers that number images."""

_BOX_NAMES = ("boxes", "bboxes", "bbox")


class ImageList(NamedTuple):
    """Images of a batch, one tensor ``(C, H, W)`` each, and one class for each of them, if there is one."""

    images: Sequence[Tensor]
    labels: Sequence[int] | None

    def group_by_size(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the images ``(n, C, H, W)`` and the labels ``(n,)`` of each size, the most frequent size first."""
        rows: dict[tuple[Any, ...], list[int]] = {}
        for i, image in enumerate(self.images):
            rows.setdefault((image.shape, image.dtype), []).append(i)
        for group in sorted(rows.values(), key=len, reverse=True):
            images = torch.stack([self.images[i] for i in group])
            labels = None if self.labels is None else [self.labels[i] for i in group]
            yield images, None if labels is None else torch.tensor(labels, device=images.device)


def find_image_list(batch: Any) -> ImageList | None:
    """Find a list of images in a batch; None if there is none.

    It is the list in ``(images, targets)`` and ``{"images": [...], ...}``, as ``tuple(zip(*batch))`` makes them, or the
    images in a list of pairs or mappings, one for each image. A list of one image is one only next to the boxes of that
    image: else it may be a list of signals.

    >>> found = find_image_list(([torch.rand(3, 8, 8), torch.rand(3, 9, 8)], [{"boxes": torch.rand(2, 4)}] * 2))
    >>> [images.shape[1:] for images, _ in found.group_by_size()]
    [torch.Size([3, 8, 8]), torch.Size([3, 9, 8])]
    """
    readings = (_read_columns(columns) for columns in _list_layouts(batch))
    direct = next((reading for reading in readings if reading is not None), None)
    inner = batch.values() if isinstance(batch, Mapping) else batch if _is_sequence(batch) else ()
    nested = (find_image_list(item) for item in inner if not (_is_sequence(item) and _are_images(item)))
    return direct or next((reading for reading in nested if reading is not None), None)


def holds_boxes(item: Any) -> bool:
    """Return whether an item is the target of one image: a mapping with its boxes."""
    return isinstance(item, Mapping) and any(str(name).lower() in _BOX_NAMES for name in item)


def _list_layouts(batch: Any) -> list[Mapping[Any, Any]]:
    """Return the parallel lists that a batch may consist of, by their names or positions."""
    if isinstance(batch, Mapping):
        return [batch]
    if not _is_sequence(batch) or not batch:
        return []
    layouts: list[Mapping[Any, Any]] = [{0: batch}, dict(enumerate(batch))]
    if all(isinstance(sample, Mapping) and sample.keys() == batch[0].keys() for sample in batch):
        layouts.append({name: [sample[name] for sample in batch] for name in batch[0]})
    elif all(_is_sequence(sample) and len(sample) == len(batch[0]) for sample in batch):
        layouts.append(dict(enumerate(map(list, zip(*batch, strict=True)))))
    return layouts


def _read_columns(columns: Mapping[Any, Any]) -> ImageList | None:
    """Return the first list of images among parallel lists, with the classes in another of them."""
    lists = {name: column for name, column in columns.items() if _is_sequence(column) and len(column)}
    key = next((name for name, column in lists.items() if _are_images(column)), None)
    if key is None:
        return None
    images = lists.pop(key)
    parallel = {name: column for name, column in lists.items() if len(column) == len(images)}
    if any(all(map(holds_boxes, column)) for column in parallel.values()):
        return ImageList(images, None)  # integers next to boxes number the images
    tensors = {name: column for name, column in columns.items() if isinstance(column, Tensor) and column.ndim == 1}
    if len(images) == 1 or any(len(tensor) == len(images[0]) != len(images) for tensor in tensors.values()):
        return None  # views of signals (N, C, L) with their N labels
    parallel |= {name: tensor.tolist() for name, tensor in tensors.items() if len(tensor) == len(images)}
    classes = (
        column
        for name, column in parallel.items()
        if str(name).lower() not in NEVER_LABELS and all(map(_is_class, column))
    )
    labels = next(classes, None)
    return ImageList(images, None if labels is None else [int(label) for label in labels])


def _is_sequence(item: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(item, (list, tuple))


def _are_images(items: Sequence[Any]) -> bool:
    return bool(items) and all(
        isinstance(item, Tensor)
        and item.ndim == 3
        and item.numel() > 0
        and (item.is_floating_point() or item.dtype == torch.uint8)
        and item.shape[0] in _CHANNELS
        and item.shape[0] == items[0].shape[0]
        for item in items
    )


def _is_class(item: Any) -> bool:
    is_scalar = isinstance(item, Tensor) and item.ndim == 0 and not item.is_floating_point() and not item.is_complex()
    return (isinstance(item, int) and not isinstance(item, bool)) or (is_scalar and item.dtype != torch.bool)
