"""From the batches that pass by to a probe: which tensors are images and labels, and which images to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_gradcam.probe import Probe

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


class Gatherer:
    """Keeps ``size`` images of the batches that it is shown, spread over the classes.

    It fills up; then an image of a class not yet seen replaces the last one of the most frequent class. It copies
    single images out of the batches and draws no random number.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: list[Probe] = []
        self._labels: list[int | None] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, batch: Any) -> None:
        """Look at one batch. (Reads its labels, so waits for the device.)"""
        probe = read_batch(batch)
        if probe is None or (self._rows and not _alike(self._rows[0], probe)):
            return
        for i, label in enumerate(_groups(probe)):
            if label is not None and label < 0:  # -1 and -100 mean that a loss leaves the image out
                continue
            place = self._place(label)
            if place is not None:
                row = probe[[i]].clone()
                self._rows[place : place + 1] = [row]
                self._labels[place : place + 1] = [label]

    def _place(self, label: int | None) -> int | None:
        """Where an image of that class goes: behind the others, in the place of one, or nowhere."""
        if len(self._rows) < self.size:
            return len(self._rows)
        if label is None or label in self._labels:
            return None
        [(frequent, count)] = Counter(self._labels).most_common(1)
        return len(self._labels) - 1 - self._labels[::-1].index(frequent) if count > 1 else None

    def settled(self, classes: int | None) -> bool:
        """Whether no further batch could change the choice, for a model that tells ``classes`` classes apart."""
        if len(self._rows) < self.size:
            return False
        wanted = self.size if classes is None else min(self.size, classes)
        return self._labels[0] is None or len(set(self._labels)) >= wanted

    def probe(self) -> Probe:
        """The images, sorted by class.

        Raises:
            ValueError: There are none.
        """
        order = sorted(range(len(self)), key=lambda i: self._labels[i] or 0)
        return Probe.cat([self._rows[i] for i in order])


def without_foreign_labels(probe: Probe, classes: int | None) -> tuple[Probe, str]:
    """Drop labels that were found in a batch and are no classes of the model; with a sentence where that was done.

    Of multi-label ones that say one class in every image, the classes are taken.
    """
    labels = probe.classes
    if probe.multilabel and probe.labels is not None:
        suits, one_each = probe.labels.shape[1] == classes, bool((probe.labels.sum(1) == 1).all())
        chosen = probe.labels.argmax(1) if one_each else probe.labels
        return replace(probe, labels=chosen if suits else None), ""
    if labels is None or classes is None:
        return probe, ""
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < classes:
        return probe, ""
    return replace(probe, labels=None), (
        f"The integers found beside the images run from {low} to {high}, but the model has {classes} classes: they are "
        "not taken as labels. Pass `probe=(images, labels)` with the right ones."
    )


def _groups(probe: Probe) -> list[int | None]:
    """What images are spread over: classes; of several labels, the first one's, and K for those that have none."""
    if probe.multilabel and probe.labels is not None:
        beyond = torch.full((len(probe),), probe.labels.shape[1], device=probe.labels.device)
        return torch.where(probe.labels.any(1), probe.labels.argmax(1), beyond).tolist()
    return [None] * len(probe) if probe.classes is None else probe.classes.tolist()


def _alike(row: Probe, batch: Probe) -> bool:
    return (
        row.images.shape[1:] == batch.images.shape[1:]
        and row.images.dtype == batch.images.dtype
        and (None if row.labels is None else row.labels.shape[1:])
        == (None if batch.labels is None else batch.labels.shape[1:])
        and {k: v.shape[1:] for k, v in row.extras.items()} == {k: v.shape[1:] for k, v in batch.extras.items()}
    )
