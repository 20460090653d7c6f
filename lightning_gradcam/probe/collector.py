"""From the batches that pass by to a probe: which tensors are images and labels, and which images to keep."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from lightning_gradcam.probe.batch import read_batch
from lightning_gradcam.probe.probe import Probe


class ProbeCollector:
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


def drop_foreign_labels(probe: Probe, classes: int | None) -> tuple[Probe, str]:
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
