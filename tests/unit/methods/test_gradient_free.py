"""Score-CAM and Ablation-CAM beside pytorch-grad-cam's, and passes that begin at a layer beside whole ones."""

from __future__ import annotations

import pytest
import pytorch_grad_cam as peers
import torch
import torchvision
from torch import nn

from lightning_gradcam import AblationCAM, Probe, ScoreCAM, explain
from lightning_gradcam.capture.forward import CheckedForward
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.restart import Restart
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import find_status
from tests.helpers.model_state import HOOKS
from tests.helpers.models import TinyResNet, TinyViT, assert_close, perturbed, plain_cnn

CLASSES = torch.tensor([0, 2, 1])


def positive(model, images):
    """The model with scores above zero: below, the peer's division by the score turns its maps over."""
    model[-1].bias.data += 5 - model(images).detach().min()
    return model


@pytest.mark.filterwarnings("ignore")  # tqdm's, theirs
@pytest.mark.parametrize(("name", "peer"), [("scorecam", peers.ScoreCAM), ("ablationcam", peers.AblationCAM)])
@pytest.mark.parametrize("layer", ["2", "5"])
def test_equals_pytorch_grad_cam(name, peer, layer):
    images = torch.randn(3, 3, 20, 27)
    model = positive(perturbed(plain_cnn(), images=images), images)
    found = explain(model, images, layers=layer, method=name, target=CLASSES).evidence[layer]
    scores = [lambda output, c=c: output[c] for c in CLASSES.tolist()]
    with peer(model, [model.get_submodule(layer)]) as cam:
        raw, inner = [], cam.get_cam_image
        cam.get_cam_image = lambda *args: raw.append(torch.from_numpy(inner(*args))) or raw[0].numpy()
        end = torch.from_numpy(cam(images, scores))
    assert_close(found, raw[0], 1e-4)
    assert (to_heatmaps(found, find_status(found), (20, 27)) - end).abs().max() < 1e-4


def restart(model, images, layer="5", call=-1):
    forward = CheckedForward(lambda model, probe: model(probe.images))
    return Restart(model, Layer(layer, call), lambda probe: forward(model, probe), Probe(images[:1]))


def resnet():
    return torchvision.models.resnet18(num_classes=5)


def densenet():
    return torchvision.models.DenseNet(4, (2, 2, 2), 8, num_classes=5)


RESTARTED = {
    "inner layer of a ResNet": (resnet, "layer3.1.conv1", -1, 64),
    "a branch that is added in place": (resnet, "layer3.0.downsample", -1, 64),
    "one of two calls": (resnet, "layer3.1.relu", 0, 64),
    "block of a DenseNet": (densenet, "features.denseblock3.denselayer2", -1, 64),
    "block of a ViT": (TinyViT, "blocks.1", -1, 16),
    "attention, which returns a tuple": (TinyViT, "blocks.1.attention", -1, 16),
}  # fmt: skip


def left(model):
    """Hooks and attributes of all modules: what standing in for them could leave behind."""
    return [({name: len(getattr(m, name)) for name in HOOKS}, sorted(vars(m))) for m in model.modules()]


@pytest.mark.parametrize("case", RESTARTED)
def test_a_pass_from_a_layer_on_is_the_whole_pass(case):
    make, layer, call, side = RESTARTED[case]
    images = torch.randn(1, 3, side, side)
    model = perturbed(make(), images=images)
    with isolated(model):
        before = left(model)
        behind = restart(model, images, layer, call)
        assert behind.is_partial
        factor = torch.tensor([0.0, 0.5, 1.0, 2.0])

        def change(output):
            return output * factor.reshape(-1, *[1] * (output.ndim - 1))

        found = behind(4, change)
        assert left(model) == before
        ran = []
        handle = model.register_forward_hook(lambda *_: ran.append(1))
        whole = behind._run_whole_model(4, change)
        handle.remove()
    assert ran
    assert_close(found, whole, 1e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-4  # something was changed


def test_what_comes_before_the_layer_runs_no_more():
    model, images = TinyResNet().eval(), torch.randn(1, 3, 16, 16)
    with isolated(model):
        behind = restart(model, images, "layer2")
        ran = []
        model.layer1.forward = lambda *args: ran.append(1)
        behind(2, lambda output: output * 2)
        assert not ran


class Keeps(nn.Module):
    """Hands a branch on in an attribute: a module that does not run leaves an old one there."""

    def __init__(self):
        super().__init__()
        self.early, self.late, self.head = Side(self), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, images):
        self.late(self.early(images))
        return self.head(self.late(self.early(images)).mean((2, 3)) + self.__dict__["side"])


class Side(nn.Module):
    def __init__(self, owner):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.__dict__["owner"] = owner

    def forward(self, images):
        found = self.conv(images).relu()
        self.owner.__dict__["side"] = found.mean((2, 3))
        return found


class Wanders(nn.Module):
    """Goes another way each time."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.late = nn.Conv2d(4, 4, 3)
        self.times = 0

    def forward(self, images):
        self.times += 1
        return self.head(self.late((self.a, self.b)[self.times % 2](images)).mean((2, 3)))


@pytest.mark.parametrize("make", [Keeps, Wanders])
def test_where_it_cannot_the_whole_model_runs(make):
    model, images = make().eval(), torch.randn(1, 3, 12, 12)
    with isolated(model):
        behind = restart(model, images, "late")
        assert not behind.is_partial
        assert behind(3, lambda output: output * 0).shape == (3, 5)


def test_nothing_is_left_where_a_restarted_pass_raises():
    model, images = TinyResNet().eval(), torch.randn(1, 3, 16, 16)
    with isolated(model):
        before = left(model)
        behind = restart(model, images, "layer2")
        assert behind.is_partial
        with pytest.raises(ForwardError):
            behind(2, lambda output: 1 / 0)
        assert left(model) == before


@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_chunks_change_nothing_and_wrong_ones_are_named(method):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyResNet(), images=images)
    whole, small = (
        explain(model, images, layers="layer2", method=method(chunk), target=1).evidence for chunk in (99, 3)
    )
    assert_close(small["layer2"], whole["layer2"], 1e-5)
    with pytest.raises(ValueError, match="`chunk` to be a positive integer, but got 0"):
        method(chunk=0)


def test_a_channel_that_says_nothing_masks_all_and_scores_need_no_gradient():
    class Blank(nn.Module):
        def forward(self, maps):
            return torch.cat([maps, maps[:, :1] * 0 + 3], 1)

    conv, images = nn.Conv2d(3, 2, 3), torch.randn(2, 3, 12, 12)
    model = nn.Sequential(conv, Blank(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    seen = []

    def forward(model, probe):
        seen.append(probe.images)
        with torch.no_grad():
            return model(probe.images)

    explain(model, images, layers="1", method="scorecam", target=1, forward=forward)
    assert not seen[-1][[2, 5]].any()
    assert seen[-1][[0, 1, 3, 4]].abs().amax((1, 2, 3)).min() > 0.1
