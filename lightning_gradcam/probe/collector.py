"""Collection of a probe from batches: the selection of images, spread over the classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch

from lightning_gradcam.probe.batch import read_labeled_probes
from lightning_gradcam.probe.probe import Probe

_MAX_PROBES = 4
"""The memory for images of different sizes, in probes; beyond it, the smallest selections are dropped."""


class ProbeCollector:
    """Collects ``size`` images of one size from batches, spread over the classes.

    The collector fills up first. Then an image of a new class replaces the last image of the most frequent class. It
    copies single images out of the batches and draws no random numbers. Of images of several sizes, it collects a
    selection for each, and takes the one that has the most images, the first of these.

    Args:
        size: Number of images.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._selections: dict[_Signature, _Selection] = {}

    def __len__(self) -> int:
        return len(self._largest.samples)

    @property
    def label_name(self) -> str:
        """The name of the labels in the batches, see `read_labeled_probes`."""
        return self._largest.label_name

    @property
    def _largest(self) -> _Selection:
        return max(self._selections.values(), key=lambda selection: len(selection.samples), default=_Selection(0))

    def add(self, batch: Any) -> None:
        """Collect the suitable images of a batch. (Reads its labels, so waits for the device.)"""
        for probe, label_name in read_labeled_probes(batch):
            signature = _get_signature(probe)
            self._selections.setdefault(signature, _Selection(self.size)).add(probe, label_name)
            while sum(len(selection.samples) for selection in self._selections.values()) > _MAX_PROBES * self.size:
                del self._selections[
                    min(reversed(self._selections), key=lambda key: len(self._selections[key].samples))
                ]

    def is_complete(self, num_classes: int | None) -> bool:
        """Return whether no further batch can change the selection.

        Args:
            num_classes: Number of classes of the model; None if unknown.
        """
        groups = self._largest.groups
        if len(groups) < self.size:
            return False
        num_groups = self.size if num_classes is None else min(self.size, num_classes)
        return groups[0] is None or len(set(groups)) >= num_groups

    def probe(self) -> Probe:
        """Return the collected images, sorted by class.

        Raises:
            ValueError: No images were collected.
        """
        samples, groups = self._largest.samples, self._largest.groups
        order = sorted(range(len(samples)), key=lambda i: groups[i] or 0)
        return Probe.cat([samples[i] for i in order])


@dataclass
class _Selection:
    """Images that can be concatenated, with the class of each (None if unlabeled), and the name of the labels."""

    size: int
    samples: list[Probe] = field(default_factory=list)
    groups: list[int | None] = field(default_factory=list)
    label_name: str = ""

    def add(self, probe: Probe, label_name: str) -> None:
        self.label_name = label_name
        for i, group in enumerate(_list_groups(probe)):
            if group is not None and group < 0:  # -1 and -100 mean that the loss ignores the image
                continue
            position = self._find_position(group)
            if position is not None:
                self.samples[position : position + 1] = [probe[[i]].clone()]
                self.groups[position : position + 1] = [group]

    def _find_position(self, group: int | None) -> int | None:
        """Return where an image of a group goes: at the end, in place of another image, or nowhere (None)."""
        if len(self.samples) < self.size:
            return len(self.samples)
        if group is None or group in self.groups:
            return None
        [(most_frequent, count)] = Counter(self.groups).most_common(1)
        return len(self.groups) - 1 - self.groups[::-1].index(most_frequent) if count > 1 else None


def select_labels(probe: Probe, current: str, selected: str) -> Probe:
    """Return a collected probe with other labels of its batches; all of them are in the extras afterwards.

    Args:
        probe: The probe.
        current: The name of its labels.
        selected: The name of the labels that belong to the explained output.

    >>> probe = Probe(torch.rand(2, 3, 4, 4), labels=torch.tensor([0, 1]), extras={"kind": torch.tensor([[4], [3]])})
    >>> select_labels(probe, "color", "kind").labels
    tensor([4, 3])
    """
    extras = dict(probe.extras) if probe.labels is None else {**probe.extras, current: probe.labels}
    labels = extras[selected]
    has_channel = labels.ndim > 1 and labels.shape[1] == 1
    return replace(probe, labels=(labels.squeeze(1) if has_channel else labels).long(), extras=extras)


def drop_foreign_labels(probe: Probe, num_classes: int | None) -> tuple[Probe, str]:
    """Drop labels of a batch that are not classes of the model; return the probe and a warning, if any.

    If multi-label ones have exactly one class per image, they become classes.

    Args:
        probe: The probe.
        num_classes: Number of classes of the model; None if unknown.
    """
    labels = probe.classes
    if probe.multilabel and probe.labels is not None:
        is_suitable, is_one_hot = probe.labels.shape[1] == num_classes, bool((probe.labels.sum(1) == 1).all())
        labels = probe.labels.argmax(1) if is_one_hot else probe.labels
        return replace(probe, labels=labels if is_suitable else None), ""
    if labels is None or num_classes is None:
        return probe, ""
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < num_classes:
        return probe, ""
    return replace(probe, labels=None), (
        f"The integers next to the images range from {low} to {high}, but the model has {num_classes} classes; they "
        "are not used as labels. Pass `probe=(images, labels)` with the correct labels."
    )


def _list_groups(probe: Probe) -> list[int | None]:
    """List the class of each image; of several labels the first, and K for images without one. None if unlabeled."""
    if probe.multilabel and probe.labels is not None:
        no_label = torch.full((len(probe),), probe.labels.shape[1], device=probe.labels.device)
        return torch.where(probe.labels.any(1), probe.labels.argmax(1), no_label).tolist()
    return [None] * len(probe) if probe.classes is None else probe.classes.tolist()


_Signature: TypeAlias = tuple[Any, ...]


def _get_signature(probe: Probe) -> _Signature:
    """Return the dtype of images, and the shapes of images, labels and extras: probes with equal ones concatenate."""
    labels = None if probe.labels is None else probe.labels.shape[1:]
    extras = frozenset((name, values.shape[1:]) for name, values in probe.extras.items())
    return probe.images.shape[1:], probe.images.dtype, labels, extras
