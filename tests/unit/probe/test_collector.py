"""Images and labels found in batches of any make, and a probe gathered from them."""

from __future__ import annotations

import itertools
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from lightning_gradcam import Probe
from lightning_gradcam.probe.batch import read_batch
from lightning_gradcam.probe.collector import ProbeCollector, drop_foreign_labels
from tests.helpers.models import examples

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
def test_images_and_labels_are_found(name):
    batch, extras = BATCHES[name]
    found = read_batch(batch)
    assert found.images is IMAGES
    assert found.labels.shape == (N,)
    assert torch.equal(found.classes, LABELS)
    assert list(found.extras) == extras


def test_without_labels_and_with_other_images():
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
def test_a_batch_without_images_is_none(batch):
    assert read_batch(batch) is None


def choose(labels: list[int], size: int) -> list[int]:
    """The rule, image by image: which of the stream are kept."""
    kept: list[int] = []
    for i, label in enumerate(labels):
        held = [labels[k] for k in kept]
        if len(kept) < size:
            kept.append(i)
        elif label not in held:
            most = max(held.count(other) for other in held)
            if most > 1:
                frequent = next(other for other in held if held.count(other) == most)
                last = max(place for place, other in enumerate(held) if other == frequent)
                kept[last] = i
    return kept


streams = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=1, max_size=8)


@examples(200)
@given(streams, st.integers(1, 8), st.booleans())
def test_gathered_as_the_rule_says_with_as_many_classes_as_there_are(batches, size, in_order):
    if in_order:  # data sorted by class, in small batches
        ends = np.cumsum([0, *map(len, batches)])
        ordered = sorted(label for batch in batches for label in batch)
        batches = [ordered[a:b] for a, b in itertools.pairwise(ends)]
    labels = [label for batch in batches for label in batch]
    numbers = torch.arange(len(labels), dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2)
    gatherer, start, settled = ProbeCollector(size), 0, None
    for batch in batches:
        gatherer.add((numbers[start : start + len(batch)], torch.tensor(batch)))
        start += len(batch)
        now = gatherer.probe().images[:, 0, 0, 0].tolist()
        assert settled in (None, now)  # no further batch could change the choice
        settled = now if gatherer.is_complete(7) else None
    probe, expected = gatherer.probe(), choose(labels, size)
    assert probe.images[:, 0, 0, 0].long().tolist() == sorted(expected, key=lambda i: (labels[i], expected.index(i)))
    assert probe.labels.tolist() == sorted(labels[i] for i in expected)
    assert len(probe) == min(size, len(labels))
    assert len(set(probe.labels.tolist())) == min(size, len(set(labels)))


def test_what_is_gathered_is_a_copy_and_labels_lie_in_a_row():
    gatherer, images, labels = ProbeCollector(3), torch.rand(4, 3, 5, 5), torch.tensor([[0], [1], [2], [3]])
    expected = images[:3].clone()
    with torch.inference_mode():
        gatherer.add({"image": images, "label": labels, "age": torch.arange(4.0)})
    images.zero_()
    labels.zero_()
    probe = gatherer.probe()
    assert torch.equal(probe.images, expected)
    assert probe.labels.tolist() == [0, 1, 2]
    assert probe.extras["age"].tolist() == [0, 1, 2]
    assert not probe.images.is_inference()


def test_without_labels_the_first_images_are_kept_and_other_batches_passed_over():
    gatherer = ProbeCollector(3)
    assert not gatherer.is_complete(5)
    first = torch.rand(2, 3, 5, 5)
    for batch in (
        torch.zeros(3, dtype=torch.long),  # no images
        first,
        torch.rand(2, 3, 7, 7),  # another size
        first.double(),  # another precision
        (first, torch.tensor([0, 1])),  # labels, where the others have none
        first + 1,
    ):
        gatherer.add(batch)
    assert torch.equal(gatherer.probe().images, torch.cat([first, first[:1] + 1]))
    assert gatherer.is_complete(5)
    gatherer.add(first + 2)
    assert torch.equal(gatherer.probe().images[2:], first[:1] + 1)


def test_integers_that_are_no_classes_are_put_aside():
    probe = Probe(IMAGES, labels=LABELS)
    for classes in (4, None):
        assert drop_foreign_labels(probe, classes) == (probe, "")
    for labels, said in ((LABELS, "from 1 to 3, but the model has 3 classes"), (LABELS - 2, "from -1 to 1")):
        changed, warning = drop_foreign_labels(Probe(IMAGES, labels=labels), 3)
        assert changed.labels is None
        assert said in warning
    assert drop_foreign_labels(Probe(IMAGES), 3) == (Probe(IMAGES), "")
