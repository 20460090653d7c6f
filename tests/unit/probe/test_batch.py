"""Images and labels in batches of any structure."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lightning_gradcam.probe.batch import read_batch

N = 4
IMAGES, LABELS, OTHER = torch.rand(N, 3, 6, 6), torch.tensor([3, 1, 2, 1]), torch.tensor([10, 11, 12, 13])
Sample = namedtuple("Sample", ["target", "picture"])


@dataclass
class Record:
    category: Tensor
    index: Tensor
    pixels: Tensor


BATCHES = {
    "tuple": ((IMAGES, LABELS), []),
    "list": ([IMAGES, LABELS], []),
    "label first": ((LABELS, IMAGES), []),
    "dict": ({"image": IMAGES, "label": LABELS}, []),
    "idx before label": ({"idx": OTHER, "image": IMAGES, "label": LABELS}, ["idx"]),
    "unknown names": ({"id": OTHER, "a": IMAGES, "b": LABELS}, ["id"]),
    "a known name wins": ({"image": IMAGES, "length": OTHER, "Target": LABELS}, ["length"]),
    "named tuple": (Sample(LABELS, IMAGES), []),
    "dataclass": (Record(LABELS, OTHER, IMAGES), ["index"]),
    "column of labels": ((IMAGES, LABELS[:, None]), []),
    "strings and numbers beside": ((IMAGES, LABELS, ["a", "b", "c", "d"], 7, None), []),
    "soft labels beside": ((IMAGES, torch.rand(N, 5), LABELS), ["1"]),
    "flags beside": ((IMAGES, torch.tensor([True, False, True, False]), LABELS), ["1"]),
    "several loaders": ({"a": (IMAGES, LABELS), "b": (torch.rand(7, 3, 6, 6), torch.arange(7))}, []),
    "labels beside their images": ({"more": {"y": OTHER}, "main": {"x": IMAGES, "z": LABELS}}, ["more.y"]),
    "two views": (([IMAGES, IMAGES + 1], LABELS), ["0.1"]),
    "scalars": ({"x": IMAGES, "y": LABELS, "temperature": torch.tensor(2.0)}, []),
}


@pytest.mark.parametrize("name", BATCHES)
def test_read_batch_finds_images_and_labels(name):
    batch, extras = BATCHES[name]
    found = read_batch(batch)
    assert found.images is IMAGES
    assert found.labels.shape == (N,)
    assert torch.equal(found.classes, LABELS)
    assert list(found.extras) == extras


def test_read_batch_without_labels_or_with_other_images():
    assert read_batch(IMAGES).labels is None
    assert read_batch((IMAGES,)).images is IMAGES
    masks = torch.zeros(N, 6, 6, dtype=torch.long)
    with_masks = read_batch((IMAGES, masks))
    assert torch.equal(with_masks.labels, masks)  # of pixels
    assert not with_masks.extras
    both = read_batch((IMAGES, masks, LABELS))
    assert torch.equal(both.labels, LABELS)
    assert both.extras["1"] is masks
    only_index = read_batch({"image": IMAGES, "index": OTHER})
    assert only_index.labels is None
    assert only_index.extras["index"] is OTHER
    bytes_, volumes, signals = (IMAGES * 255).byte(), torch.rand(N, 1, 3, 4, 5), torch.rand(N, 2, 9)
    for images in (bytes_, volumes, signals):
        assert read_batch((LABELS, images)).images is images
    assert read_batch((bytes_, volumes)).images is volumes
    assert read_batch((signals, bytes_)).images is bytes_


@pytest.mark.parametrize("batch", [
    None, 3, "text", [], {}, LABELS, (LABELS, OTHER), {"tokens": torch.zeros(4, 9, dtype=torch.long)},
    torch.rand(4, 7), torch.rand(0, 3, 6, 6), {"a": ["b", {"c": None}]},
])  # fmt: skip
def test_read_batch_returns_none_without_images(batch):
    assert read_batch(batch) is None
