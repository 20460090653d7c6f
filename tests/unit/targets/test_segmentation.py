"""Segmentation: scores of pixels' classes against pytorch-grad-cam and a float64 replica, and what words mean there."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam as peers
import torch
import torchvision
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import nn

from lightning_gradcam import Probe, SegmentationScore, explain
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.methods import METHODS, get_location
from lightning_gradcam.targets import TARGETS
from tests.helpers.models import assert_close, full_autograd, perturbed, plain_gradcam

K = 4


class TinyUNet(nn.Module):
    """Two resolutions, a skip, and a map of scores at the images' size; ``K`` channels also in its last ReLU."""

    def __init__(self, classes: int = K, channels: int = 3) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.Sequential(nn.Conv2d(14, classes, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(classes, classes, 1)

    def forward(self, images):
        down = self.down(images)
        deep = nn.functional.interpolate(self.deep(down), size=down.shape[-2:], mode="bilinear")
        return self.head(self.up(torch.cat([down, deep], 1)))


class InDict(nn.Module):
    """Coarse scores, enlarged outside of any module, in a mapping beside others, as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.auxiliary = TinyUNet(), nn.Conv2d(3, K, 1)

    def forward(self, images):
        coarse = self.net(nn.functional.avg_pool2d(images, 2))
        enlarged = nn.functional.interpolate(coarse, size=images.shape[-2:], mode="bilinear")
        return {"aux": self.auxiliary(images), "out": enlarged}


class Kept:
    """What a peer computes before its ReLU."""

    def __init__(self, peer):
        self.found, self.inner = [], peer.get_cam_image
        peer.get_cam_image = self

    def __call__(self, *args, **kwargs):
        self.found.append(torch.from_numpy(self.inner(*args, **kwargs)))
        return self.found[-1].numpy()


def unet(images, make=TinyUNet):
    return perturbed(make(), images=images)


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 24)


@pytest.mark.parametrize(("make", "layer"), [(TinyUNet, "deep"), (TinyUNet, "up"), (InDict, "net.deep")])
def test_equals_pytorch_grad_cam_over_the_predicted_pixels(images, make, layer):
    model = unet(images, make)

    class Tensors(nn.Module):  # the peer knows no mapping
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, rows):
            output = self.inner(rows)
            return output if isinstance(output, torch.Tensor) else output["out"]

    scores = Tensors()(images).detach()
    for c in range(K):
        regions = (scores.argmax(1) == c).numpy().astype(np.float32)
        module = model.get_submodule(layer)
        with peers.GradCAM(Tensors(), [module]) as peer:
            raw = Kept(peer)
            peer(images, [SemanticSegmentationTarget(c, region) for region in regions])
        found = explain(model, images, layers=layer, target=c)
        if regions.any():
            assert_close(found.evidence[layer], raw.found[0], 1e-5)
        none = [not region.any() for region in regions]
        assert [flaw == "no gradient" for flaw in found.degenerate[layer]] == none
        assert found.classes.tolist() == [c] * 3


def shares(masks, background=0):
    """Which class takes the most pixels besides the background, written as a person would count."""
    chosen = []
    for mask in masks:
        counts = {k: int((mask == k).sum()) for k in range(K) if k != background}
        best = max(counts, key=counts.get)
        chosen.append(best if counts[best] else background)
    return chosen


def replica(scores, classes, masks):
    """The sum of one class's scores over the pixels of a mask, pixel by pixel."""
    total = []
    for n, c in enumerate(classes):
        total.append(sum(scores[n, c, y, x] for y, x in (masks[n] == c).nonzero().tolist()))
    return torch.stack([torch.as_tensor(t) for t in total])


@pytest.mark.parametrize("what", ["predicted", "label masks", "label classes", "one each"])
def test_equals_a_float64_replica(images, what):
    model = unet(images)
    predicted = model(images).argmax(1)
    labels = torch.randint(1, K, predicted.shape)
    labels[:, :, 12:] = 2
    labels[0, :4] = 255  # which losses leave out
    given = shares(predicted)
    probe, target, classes, masks = {
        "predicted": (Probe(images), "predicted", given, predicted),
        "label masks": (Probe(images, labels=labels), "label", [2, 2, 2], labels),
        "label classes": (Probe(images, labels=torch.tensor(given)), "label", given, predicted),
        "one each": (Probe(images), given, given, predicted),
    }[what]
    found = explain(model, probe, layers="deep", target=target)
    assert found.classes.tolist() == classes
    expected = plain_gradcam(*full_autograd(model, "deep", images, lambda out: replica(out, classes, masks)))
    assert_close(found.evidence["deep"], expected, 1e-5)


def test_every_method_serves_pixels_and_a_batch_equals_its_images(images):
    model = unet(images)
    of_layers = [name for name, method in METHODS.items() if get_location(method) is None]
    methods = [name for name in of_layers if name != "cam"]  # the scores of pixels are no pooling of a map
    together = explain(model, images, layers="deep", method=methods)
    for i in range(len(images)):
        alone = explain(model, images[i : i + 1], layers="deep", method=methods)
        for key, evidence in alone.evidence.items():
            assert_close(evidence, together.evidence[key][i : i + 1], 1e-4)


def test_the_background_is_passed_over_unless_it_is_all_there_is_or_none_is_told():
    scores = torch.zeros(2, K, 2, 4)
    scores[:, 0] = 1.0
    scores[0, 3, 0, :2] = 5.0
    probe = Probe(torch.rand(2, 3, 2, 4))
    assert SegmentationScore().select_classes(scores, probe).tolist() == [3, 0]
    assert SegmentationScore()(scores, probe).tolist() == [10.0, 8.0]
    assert SegmentationScore(background=None).select_classes(scores, probe).tolist() == [0, 0]
    assert SegmentationScore(background=3).select_classes(scores, probe).tolist() == [0, 0]
    assert SegmentationScore(3).select_pixels(scores, probe).sum((1, 2)).tolist() == [2, 0]


def test_masks_finer_than_the_scores_are_read_at_the_middle_of_each():
    scores = torch.rand(1, K, 2, 2)
    labels = torch.zeros(1, 6, 6, dtype=torch.long)
    labels[0, 4, 1] = 2  # the middle of the lower left of four
    score = SegmentationScore("label")
    probe = Probe(torch.rand(1, 3, 6, 6), labels=labels)
    assert score.select_pixels(scores, probe).tolist() == [[[False, False], [True, False]]]
    assert score(scores, probe) == scores[0, 2, 1, 0]


def test_one_score_per_pixel_is_a_mask():
    found = SegmentationScore(1)(torch.tensor([[[[2.0, -2.0, 4.0]]]]), Probe(torch.rand(1, 1, 1, 3)))
    assert found.tolist() == [3.0]  # half of 2 and of 4, against minus half for "no"


def test_auto_is_the_last_map_before_the_scores_also_with_as_many_channels(images):
    layers = {
        make: prepare(unet(images, make), Probe(images), target=TARGETS["predicted"]).layers
        for make in (TinyUNet, InDict)
    }
    assert [layer.name for layer in layers[TinyUNet]] == ["up"]
    assert [layer.name for layer in layers[InDict]] == ["net.up"]


SEGMENTATION = {
    "fcn_resnet50": ("classifier.2", 8),
    "deeplabv3_mobilenet_v3_large": ("classifier.3", 16),
    "lraspp_mobilenet_v3_large": ("classifier.cbr", 16),
}


@pytest.mark.parametrize("name", SEGMENTATION)
def test_torchvisions_models_need_no_setting(name):
    make = getattr(torchvision.models.segmentation, name)
    images = torch.rand(2, 3, 64, 96)
    model = make(weights=None, weights_backbone=None, num_classes=K).eval()
    found = explain(model, images)
    layer, stride = SEGMENTATION[name]
    assert list(found.layers) == [layer]
    assert found.evidence[layer].shape == (2, 64 // stride, 96 // stride)
    assert found.degenerate[layer] == (None, None)
    assert found.classes.tolist() == shares(model(images)["out"].argmax(1))


@pytest.mark.parametrize(("target", "said"), [(K, "from 0 to 3"), (-1, "from 0"), ([0, 1], "one for each of 3")])
def test_classes_that_are_not_there_are_refused(images, target, said):
    with pytest.raises(ValueError, match=said):
        explain(unet(images), images, target=target)


def test_flips_mirror_the_labels_mask_with_the_image(images):
    model, labels = unet(images), torch.zeros(3, 16, 24, dtype=torch.long)
    labels[:, 2:9, 3:8] = 2
    found = explain(model, Probe(images, labels=labels), layers="deep", target="label", flips=True)
    straight = explain(model, Probe(images, labels=labels), layers="deep", target="label").evidence["deep"]
    turned = explain(model, Probe(images.flip(-1), labels=labels.flip(-1)), layers="deep", target="label")
    assert_close(found.evidence["deep"], (straight + turned.evidence["deep"].flip(-1)) / 2, 1e-6)


def test_volumes_are_served_like_images():
    model = nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, K, 1))
    found = explain(model, torch.rand(2, 1, 6, 8, 10))
    assert found.evidence["1"].shape == (2, 6, 8, 10)
