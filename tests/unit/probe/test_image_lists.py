"""Images in lists: the batches of detectors, and images of several sizes."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam.probe.batch import read_batch, read_labeled_probes
from lightning_gradcam.probe.collector import ProbeCollector

SMALL, WIDE = torch.rand(3, 8, 8), torch.rand(3, 8, 12)


def target(count):
    """The target of one image, with as many boxes as there may be images."""
    return {"boxes": torch.rand(count, 4), "labels": torch.arange(count), "masks": torch.zeros(count, 8, 8).byte()}


PAIRS = [(SMALL, target(3)), (WIDE, target(2)), (SMALL + 1, target(3))]
IMAGES, TARGETS = [image for image, _ in PAIRS], [boxes for _, boxes in PAIRS]

BATCHES = {
    "tuple(zip(*batch))": tuple(zip(*PAIRS, strict=True)),
    "lists": [IMAGES, TARGETS],
    "targets first": (TARGETS, IMAGES),
    "mapping": {"image_id": [7, 8, 9], "images": IMAGES, "targets": TARGETS},
    "samples": PAIRS,
    "samples as mappings": [{"image": image, "target": boxes} for image, boxes in PAIRS],
    "nested": {"train": (IMAGES, TARGETS), "number": 3},
    "images alone": IMAGES,
    "ids next to boxes": (IMAGES, TARGETS, (1, 2, 3)),
    "ids as strings": (IMAGES, ["a", "b", "c"]),
    "bytes": [[(255 * image.clamp(0, 1)).byte() for image in IMAGES], TARGETS],
}


@pytest.mark.parametrize("name", BATCHES)
def test_read_batch_finds_images_in_lists(name):
    by_size = [probe for probe, _ in read_labeled_probes(BATCHES[name])]
    assert [tuple(probe.images.shape) for probe in by_size] == [(2, 3, 8, 8), (1, 3, 8, 12)]
    if name != "bytes":
        assert torch.equal(by_size[0].images, torch.stack([IMAGES[0], IMAGES[2]]))
        assert torch.equal(by_size[1].images[0], WIDE)
        assert torch.equal(read_batch(BATCHES[name]).images, by_size[0].images)
    assert all(probe.labels is None and not probe.extras for probe in by_size)


LABELED = {
    "integers": (IMAGES, (4, 5, 6)),
    "scalars": (IMAGES, [torch.tensor(4), torch.tensor(5), torch.tensor(6)]),
    "tensor": (IMAGES, torch.tensor([4, 5, 6])),
    "samples": list(zip(IMAGES, (4, 5, 6), strict=True)),
    "names": {"index": [1, 2, 3], "image": IMAGES, "number": [4, 5, 6]},
}


@pytest.mark.parametrize("name", LABELED)
def test_read_batch_finds_classes_of_images_in_lists(name):
    (first, _), (second, _) = read_labeled_probes(LABELED[name])
    assert (first.labels.tolist(), second.labels.tolist()) == ([4, 6], [5])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_classes_of_boxes_are_not_labels_of_images(count):
    images = torch.rand(count, 3, 8, 8)
    for targets in ([target(count)] * count, tuple(target(count) for _ in range(count))):
        for batch in ((images, targets), (targets, images), {"x": images, "y": targets}):
            probe = read_batch(batch)
            assert probe.images is images
            assert probe.labels is None
            assert not probe.extras


def test_list_of_one_image_is_one_next_to_its_boxes():
    assert read_batch(([SMALL], [target(2)])).images.shape == (1, 3, 8, 8)
    assert read_batch([(SMALL, target(2))]).images.shape == (1, 3, 8, 8)
    assert read_batch(([SMALL], ["name"])).images is SMALL  # signals (3, 8, 8)


@pytest.mark.parametrize("batch", [
    ([torch.rand(4, 1, 96), torch.rand(4, 1, 96)], torch.arange(4)),
    ([torch.rand(6, 1, 96), torch.rand(6, 1, 96)], torch.arange(6)),
    {"a": (torch.rand(8, 1, 96), torch.arange(8)), "b": (torch.rand(8, 1, 96), torch.arange(8))},
    ([torch.rand(2, 8, 8), torch.rand(3, 8, 8)], ["a", "b"]),
    ([torch.zeros(3, 8, 8, dtype=torch.long)] * 2,),
])  # fmt: skip
def test_lists_of_other_tensors_are_not_images(batch):
    assert read_batch(batch) is None


def test_batch_of_images_comes_before_list():
    images = torch.rand(3, 3, 6, 6)
    assert read_batch((images, IMAGES, [1, 2, 0])).images is images


def test_collector_takes_most_frequent_size():
    collector = ProbeCollector(4)
    collector.add(([WIDE, SMALL], [target(1), target(1)]))
    assert collector.probe().size == (8, 12)
    for number in range(1, 6):
        collector.add(([SMALL + number], [target(number)]))
        collector.add(([torch.rand(3, 9, 8 + number)], [target(1)]))
    assert collector.is_complete(None)
    assert torch.equal(collector.probe().images, torch.stack([SMALL + number for number in range(4)]))


def test_collector_tracks_limited_number_of_sizes():
    collector = ProbeCollector(2)
    for width in range(4, 60):
        collector.add(torch.rand(1, 3, 8, width))
    for _ in range(2):
        collector.add(torch.rand(1, 3, 8, 59))  # a size that came too late
    assert len(collector) == 1
    collector.add(torch.rand(1, 3, 8, 4))
    assert collector.probe().size == (8, 4)
