"""Numbers at each position: scores of classes, or an image, depths or heatmaps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam import Probe, explain, recommended_layers
from lightning_gradcam.targets.output_kinds import OutputClues, find_output_kind
from lightning_gradcam.targets.output_kinds.label_clues import read_labels

N, SIZE = 4, (16, 16)
IMAGES = torch.rand(N, 3, *SIZE)


def decide(output, labels=None, extras=None, **clues):
    probe = Probe(IMAGES, labels=labels, extras=extras or {})
    return find_output_kind(output, probe, OutputClues(read_labels(probe, with_extras=True), **clues)).name


def scores(channels, *size):
    return torch.randn(N, channels, *(size or SIZE))


MASKS = torch.arange(N * 256).reshape(N, *SIZE) % 3
IGNORED = MASKS.clone()
IGNORED[:, 0] = 255
ONE_HOT = nn.functional.one_hot(MASKS, 3).movedim(-1, 1).float()
HEATMAPS = torch.zeros(N, 5, 4, 4)
HEATMAPS[:, :, 1, 2] = 1
MSE, CROSS, BOTH = {"values": "mse_loss"}, {"classes": "cross_entropy"}, {"classes": "bce", "values": "l1_loss"}
CASES = {
    "masks": (scores(3), {"labels": MASKS}, "segmentation"),
    "masks with ignored pixels": (scores(3), {"labels": IGNORED}, "segmentation"),
    "masks of other classes": (scores(3), {"labels": MASKS + 3}, "other"),
    "binary masks": (scores(1), {"labels": MASKS > 0}, "segmentation"),
    "binary masks of floats": (scores(1), {"extras": {"1": (MASKS[:, None] > 0).float()}}, "segmentation"),
    "masks of three for one channel": (scores(1), {"labels": MASKS}, "other"),
    "one-hot masks": (scores(3), {"extras": {"1": ONE_HOT}}, "segmentation"),
    "masks, whatever the loss": (scores(3), {"labels": MASKS, "losses": MSE}, "segmentation"),
    "depths": (scores(1), {"extras": {"1": torch.rand(N, 1, *SIZE)}}, "image"),
    "depths without channel": (scores(1), {"extras": {"1": torch.rand(N, *SIZE)}}, "image"),
    "clean images": (scores(3), {"extras": {"1": torch.rand(N, 3, *SIZE)}}, "image"),
    "heatmaps": (scores(5, 4, 4), {"extras": {"1": torch.rand(N, 5, 4, 4)}}, "image"),
    "heatmaps of ones": (scores(5, 4, 4), {"extras": {"1": HEATMAPS}, "losses": MSE}, "image"),
    "autoencoder": (scores(3), {"losses": MSE}, "image"),
    "autoencoder beside labels": (scores(3), {"labels": torch.tensor([0, 9, 3, 1])}, "image"),
    "autoencoder by binary cross-entropy": (scores(3), {"losses": {"classes": "binary_cross_entropy"}}, "other"),
    "shape of the images": (scores(3), {}, "other"),
    "shape of the images, classes": (scores(3), {"losses": CROSS}, "segmentation"),
    "one channel": (scores(1, 8, 8), {}, "other"),
    "one channel, binary": (scores(1, 8, 8), {"losses": {"classes": "DiceLoss"}}, "segmentation"),
    "named": ({"out": scores(3)}, {}, "segmentation"),
    "five classes": (scores(5), {}, "segmentation"),
    "deep supervision": ([scores(5), scores(5, 8, 8)], {}, "segmentation"),
    "a class by number": (scores(3), {"names_class": True}, "segmentation"),
    "classes in the data": (scores(3), {"num_classes": 3}, "segmentation"),
    "coarse grid": (scores(85, 1, 1), {}, "other"),
    "two losses": (scores(3), {"losses": BOTH}, "other"),
    "labels of images": (scores(5), {"labels": torch.arange(N)}, "segmentation"),
    "labels of more images": (scores(5), {"labels": torch.arange(N) * 5}, "other"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_labels_losses_and_shape_decide(name):
    output, known, expected = CASES[name]
    assert decide(output, **known) == expected


def test_grids_of_a_detector_are_no_masks():
    probe = Probe(torch.rand(2, 3, 64, 64))
    grids = [torch.randn(2, 85, side, side) for side in (8, 4, 2)]
    assert find_output_kind(grids, probe).name == "other"
    assert find_output_kind(grids[0], probe).name == "segmentation"  # as coarse as segmentation models return them
    assert find_output_kind(grids[1], probe).name == "other"


LABELS = torch.arange(N)
BESIDE = {
    "masks": ((scores(5), torch.randn(N, 4)), {"labels": MASKS}, "segmentation"),
    "masks and labels": ((scores(5), torch.randn(N, 4)), {"labels": LABELS, "extras": {"1": MASKS}}, "segmentation"),
    "labels": ((scores(5), torch.randn(N, 4)), {"labels": LABELS}, "classes"),
    "nothing": ((scores(5), torch.randn(N, 4)), {}, "other"),
    "features": ((scores(64, 2, 2), torch.randn(N, 4)), {}, "classes"),
    "logits by name": ({"out": scores(5), "logits": torch.randn(N, 4)}, {}, "classes"),
    "variational autoencoder": ((scores(3), torch.randn(N, 20), torch.randn(N, 20)), {"losses": MSE}, "image"),
    "variational autoencoder, labels": ((scores(3), torch.randn(N, 20)), {"labels": LABELS}, "other"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_dense_part_beside_a_vector(name):
    output, known, expected = BESIDE[name]
    assert decide(output, **known) == expected


class Dense(nn.Module):
    """Channels at each pixel."""

    def __init__(self, channels):
        super().__init__()
        self.body, self.out = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()), nn.Conv2d(6, channels, 1)

    def forward(self, images):
        return self.out(self.body(images))


def test_an_image_is_refused_with_an_example_that_works():
    model, probe = Dense(3), Probe(IMAGES, extras={"1": torch.rand(N, 3, *SIZE)})
    for output in ("auto", "image"):
        with pytest.raises(RuntimeError, match=r"lambda output, probe: output\[:, 0\].*`output='segmentation'`"):
            explain(model, probe, output=output)
    found = explain(model, probe, target=lambda output, probe: output[:, 0].flatten(1).mean(1))
    assert found.logits.shape == (N, 0)
    assert list(found.evidence) == ["body"]
    assert recommended_layers(model, IMAGES)[0].layer.name == "body"
    assert explain(model, IMAGES, output="segmentation").classes is not None
    assert explain(model, IMAGES, target=1).classes.tolist() == [1] * N  # a number names a class


def test_binary_masks_are_explained_as_two_classes():
    probe = Probe(IMAGES, labels=(MASKS > 0).long())
    found, model = explain(Dense(1), probe, target="label"), Dense(1)
    assert found.classes.tolist() == [1] * N
    scores = model(IMAGES)[:, 0]
    of = explain(model, IMAGES, target=lambda output, _: torch.where(output > 0, output / 2, 0).flatten(1).sum(1))
    found = explain(model, IMAGES, target=1)
    torch.testing.assert_close(found.evidence["body"], of.evidence["body"])
    assert torch.equal(found.region, scores > 0)


def test_the_name_of_the_module_tells_of_masks():
    class Named(Dense):
        def __init__(self, name):
            super().__init__(1)
            self.head, self.name = nn.ModuleDict({name: self.out}), name
            del self.out

        def forward(self, images):
            return self.head[self.name](self.body(images))

    for name in ("segmentation_head", "mask", "seg"):
        assert explain(Named(name), IMAGES).classes is not None
    for name in ("depth_head", "segment_length", "final"):
        with pytest.raises(RuntimeError, match="nothing tells that these are masks"):
            explain(Named(name), IMAGES)


def test_parts_that_do_not_depend_on_the_weights_are_no_logits():
    class Masked(Dense):
        def forward(self, images):
            return {"logits": super().forward(images).flatten(2), "mask": torch.ones(len(images), 5)}

    with pytest.raises(RuntimeError, match="Expected logits of shape"):
        explain(Masked(5), IMAGES)

    class Constant(Dense):
        def forward(self, images):
            return {"constant": torch.zeros(len(images), 7), "class": super().forward(images).mean((2, 3))}

    assert explain(Constant(5), IMAGES).logits.shape == (N, 5)


class Queries(nn.Module):
    """Rows of logits and boxes per object query."""

    def __init__(self, names=("logits", "pred_boxes")):
        super().__init__()
        self.names, self.body, self.out = names, nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Linear(6, 7 * 9)

    def forward(self, images):
        rows = self.out(self.body(images).mean((2, 3))).reshape(-1, 7, 9)
        return {self.names[0]: rows[..., :5], self.names[1]: rows[..., 5:]}


@pytest.mark.parametrize("names", [("logits", "pred_boxes"), ("class_queries_logits", "masks_queries_logits")])
def test_object_queries_are_refused_with_the_route(names):
    with pytest.raises(RuntimeError, match=r"\(2, 7, 5\).*object query.*`target=`.*'boxes', 'labels' and 'scores'"):
        explain(Queries(names), torch.rand(2, 3, 8, 8))
    found = explain(Queries(names), torch.rand(2, 3, 8, 8), target=lambda output, _: output[names[0]].amax((1, 2)))
    assert list(found.evidence) == ["body"]
