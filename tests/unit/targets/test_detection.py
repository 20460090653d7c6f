"""Detectors: the best box's score, and a map that follows the model's own resizing and padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import detection

from lightning_gradcam import BoxScore, NotExplainableError, Probe, explain
from lightning_gradcam.targets.classes import freeze_classes
from lightning_gradcam.targets.detection import as_list
from lightning_gradcam.targets.padding import find_image_fraction
from tests.helpers.detectors import Spots, spotted
from tests.helpers.models import assert_close, plain_gradcam
from tests.helpers.recorder import flat, state_of

CLASSES = 5


@pytest.mark.parametrize(
    ("size", "asked"), [((40, 72), 60), ((72, 40), 100), ((50, 50), 90), ((33, 67), 75), ((64, 64), 64)]
)
def test_map_covers_the_spot_whatever_the_resizing_and_padding(size, asked):
    """Planted at three places; the centre of the evidence has to be the spot's, to less than a cell."""
    height, width = size
    side = min(size) // 4
    at = [(0, 0, side, side), (height - side, width - side, side, side), (height // 3, width - side, side, side)]
    model, images = Spots(asked), spotted(size, at)
    found = explain(model, images)
    heat = found.heatmaps()["body"]
    cell = 8 * min(size) / asked
    down, across = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for i, (y, x, h, w) in enumerate(at):
        mass = heat[i] / heat[i].sum()
        centre = float((mass * down).sum()), float((mass * across).sum())
        assert centre == pytest.approx((y + h / 2, x + w / 2), abs=0.6 * cell)
        assert heat[i].flatten().argmax() in torch.nonzero(images[i, 0].flatten())


@pytest.mark.parametrize(("size", "asked"), [((40, 72), 60), ((33, 67), 75), ((72, 40), 100)])
def test_evidence_equals_a_replica_cropped_after_resizing(size, asked):
    model = Spots(asked).double()
    images = F.interpolate(torch.rand(2, 1, 5, 9, dtype=torch.float64), size, mode="bilinear")
    found = explain(model.float(), images.float()).evidence["body"]
    model.double()
    seen, _ = model.transform(list(images))
    padded = model.body(seen.tensors).detach()
    best = [scores[0].max() > 0.5 for scores in padded]
    assert all(best)
    gradients = torch.zeros_like(padded)
    for n, scores in enumerate(padded):
        y, x = divmod(int(scores[0].argmax()), scores.shape[-1])
        gradients[n, :, y, x] = torch.tensor([1.0, -1.0])
    whole = plain_gradcam(padded, gradients)
    (h, w), (all_h, all_w) = seen.image_sizes[0], seen.tensors.shape[-2:]
    cells = -(-h * whole.shape[1] // all_h), -(-w * whole.shape[2] // all_w)
    assert tuple(found.shape[1:]) == cells
    for i in range(cells[0]):
        for j in range(cells[1]):
            # The middle of each of the new cells, in cells of the whole.
            y = (i + 0.5) / cells[0] * h / all_h * whole.shape[1] - 0.5
            x = (j + 0.5) / cells[1] * w / all_w * whole.shape[2] - 0.5
            at = torch.tensor([[[[(2 * x + 1) / whole.shape[2] - 1, (2 * y + 1) / whole.shape[1] - 1]]]]).double()
            expected = F.grid_sample(whole[:, None], at.expand(2, 1, 1, 2), padding_mode="border", align_corners=False)
            assert_close(found[:, i, j], expected[:, 0, 0, 0].float(), 1e-5)


def test_class_is_explained_by_its_best_box_if_there_is_one():
    images = spotted((64, 64), [(0, 0, 8, 8), (0, 0, 8, 8)])
    images[0, :, 40:48, 40:48] = 0.9  # the second box of the first image
    model = Spots(64)
    assert [len(each["scores"]) for each in model(images)] == [2, 1]
    predicted, second = explain(model, images), explain(model, images, target=2)
    assert predicted.classes.tolist() == [1, 1]
    assert predicted.degenerate["body"] == (None, None)
    assert second.degenerate["body"] == (None, "no gradient")
    labelled = explain(model, Probe(images, labels=torch.tensor([2, 1])), target="label")
    assert torch.equal(labelled.evidence["body"][0], second.evidence["body"][0])
    assert torch.equal(labelled.evidence["body"][1], predicted.evidence["body"][1])
    assert explain(model, images, target=BoxScore(2)).classes.tolist() == [2, 2]


def test_maps_say_no_gradient_if_no_image_has_a_box():
    found = explain(Spots(64), torch.zeros(2, 1, 64, 64))
    assert set(found.degenerate["body"]) == {"no gradient"}
    assert found.classes.tolist() == [0, 0]


@pytest.mark.parametrize(
    "target",
    [BoxScore(), BoxScore(1), BoxScore(freeze_classes(torch.arange(4) % 3))],
    ids=["predicted", "one class", "a class per image"],
)
def test_scored_boxes_are_those_with_a_gradient(target):
    """Few values, so that the best are often equal, and one of them NaN."""
    values = torch.tensor([0.25, 0.5, 0.75, torch.nan])
    probe = Probe(torch.zeros(4, 1, 8, 8))
    counts = set()
    for seed in range(30):
        choice = torch.Generator().manual_seed(seed)
        output = [
            {
                "boxes": torch.zeros(count, 4),
                "labels": torch.randint(0, 3, (count,), generator=choice),
                "scores": values[torch.randint(0, 3 + (seed % 3 == 0), (count,), generator=choice)].requires_grad_(),
            }
            for count in torch.randint(0, 7, (4,), generator=choice).tolist()
        ]
        gradients = torch.autograd.grad(target(output, probe).sum(), [each["scores"] for each in output])
        expected = [gradient.nonzero().flatten().tolist() for gradient in gradients]
        assert [list(numbers) for numbers in target.find_scored(output, probe)] == expected
        counts |= {len(numbers) for numbers in expected}
    assert {0, 1, 2} <= counts


def test_callable_target_reads_boxes():
    images = spotted((64, 64), [(0, 0, 8, 8)])

    def all_of_class_one(output, probe):
        return torch.stack([each["scores"][each["labels"] == 1].sum() for each in output])

    found = explain(Spots(64), images, target=all_of_class_one, forward=as_list)
    assert torch.equal(found.evidence["body"], explain(Spots(64), images, target=1).evidence["body"])
    with pytest.raises(NotExplainableError, match="'boxes', 'labels' and 'scores'"):
        explain(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)),
            images[..., :8, :8],
            target=BoxScore(),
        )


MODELS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"min_size": 96, "max_size": 160, "box_detections_per_img": 40},
    "retinanet_resnet50_fpn": {"min_size": 96, "max_size": 160, "score_thresh": 0.001},
    "ssdlite320_mobilenet_v3_large": {},
    "fcos_resnet50_fpn": {"min_size": 96, "max_size": 160, "score_thresh": 0.001},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_torchvision_detectors_work_and_stay_unchanged(name):
    images = torch.rand(2, 3, 60, 90)
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=CLASSES, **MODELS[name]).train()
    before = flat(state_of(model))
    found = explain(model, images)
    assert flat(state_of(model)) == before
    [(key, evidence)] = found.evidence.items()
    assert found.degenerate[key] == (None, None)
    assert evidence.isfinite().all()
    assert evidence.shape[1] * evidence.shape[2] >= 16
    best = [each["labels"][0] for each in model.eval()(list(images))]
    assert found.classes.tolist() == [int(label) for label in best]
    share = find_image_fraction(model, Probe(images))
    assert share == ((1.0, 1.0) if name.startswith("ssd") else (96 / 96, 144 / 160))
