"""A probe collected from batches."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, strategies as st

from lightning_gradcam import Probe
from lightning_gradcam.probe.collector import ProbeCollector, drop_foreign_labels
from tests.helpers.models import examples

IMAGES, LABELS = torch.rand(4, 3, 6, 6), torch.tensor([3, 1, 2, 1])


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
def test_collector_follows_rule_and_covers_classes(batches, size, in_order):
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


def test_collector_copies_images_and_flattens_labels():
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


def test_collector_without_labels_skips_other_batches():
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


def test_drop_foreign_labels_drops_integers_outside_classes():
    probe = Probe(IMAGES, labels=LABELS)
    for classes in (4, None):
        assert drop_foreign_labels(probe, classes) == (probe, "")
    for labels, said in ((LABELS, "from 1 to 3, but the model has 3 classes"), (LABELS - 2, "from -1 to 1")):
        changed, warning = drop_foreign_labels(Probe(IMAGES, labels=labels), 3)
        assert changed.labels is None
        assert said in warning
    assert drop_foreign_labels(Probe(IMAGES), 3) == (Probe(IMAGES), "")


def test_images_of_many_sizes_take_the_memory_of_four_probes():
    collector = ProbeCollector(3)
    frequent = torch.rand(1, 3, 9, 9)
    for number in range(40):
        collector.add([torch.rand(1, 3, 10 + number, 8)])  # a new size each time
        if number % 10 == 0:
            collector.add([frequent + number])
        held = [sample for selection in collector._selections.values() for sample in selection.samples]
        assert len(held) <= 4 * 3
    assert collector.probe().images.shape == (3, 3, 9, 9)
