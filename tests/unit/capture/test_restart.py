"""Passes that start at a layer against passes through the whole model."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import Probe
from lightning_gradcam.capture.forward import CheckedForward
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.restart import Restart
from lightning_gradcam.errors import ForwardError
from tests.helpers.model_state import HOOKS
from tests.helpers.models import TinyResNet, TinyViT, assert_close, perturbed


def create_restart(model, images, layer="5", call=-1):
    forward = CheckedForward(lambda model, probe: model(probe.images))
    return Restart(model, Layer(layer, call), lambda probe: forward(model, probe), Probe(images[:1]))


def resnet():
    return torchvision.models.resnet18(num_classes=5)


def densenet():
    return torchvision.models.DenseNet(4, (2, 2, 2), 8, num_classes=5)


RESTARTED = {
    "inner layer of a ResNet": (resnet, "layer3.1.conv1", -1, 64),
    "branch that is added in place": (resnet, "layer3.0.downsample", -1, 64),
    "one of two calls": (resnet, "layer3.1.relu", 0, 64),
    "block of a DenseNet": (densenet, "features.denseblock3.denselayer2", -1, 64),
    "block of a ViT": (TinyViT, "blocks.1", -1, 16),
    "attention, which returns a tuple": (TinyViT, "blocks.1.attention", -1, 16),
}  # fmt: skip


def snapshot_modules(model):
    """Return the hooks and attributes of all modules, which a restart must not change."""
    return [({name: len(getattr(m, name)) for name in HOOKS}, sorted(vars(m))) for m in model.modules()]


@pytest.mark.parametrize("case", RESTARTED)
def test_restarted_pass_equals_the_whole_pass(case):
    make, layer, call, side = RESTARTED[case]
    images = torch.randn(1, 3, side, side)
    model = perturbed(make(), images=images)
    with isolated(model):
        state = snapshot_modules(model)
        restarted = create_restart(model, images, layer, call)
        assert restarted.is_partial
        factor = torch.tensor([0.0, 0.5, 1.0, 2.0])

        def change(output):
            return output * factor.reshape(-1, *[1] * (output.ndim - 1))

        output = restarted(4, change)
        assert snapshot_modules(model) == state
        ran = []
        handle = model.register_forward_hook(lambda *_: ran.append(1))
        expected = restarted._run_whole_model(4, change)
        handle.remove()
    assert ran
    assert_close(output, expected, 1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-4  # the change has an effect


def test_modules_before_the_layer_do_not_run():
    model, images = TinyResNet().eval(), torch.randn(1, 3, 16, 16)
    with isolated(model):
        restarted = create_restart(model, images, "layer2")
        ran = []
        model.layer1.forward = lambda *args: ran.append(1)
        restarted(2, lambda output: output * 2)
        assert not ran


class Side(nn.Module):
    def __init__(self, owner):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.__dict__["owner"] = owner

    def forward(self, images):
        output = self.conv(images).relu()
        self.owner.__dict__["side"] = output.mean((2, 3))
        return output


class Stateful(nn.Module):
    """Model that passes a branch through an attribute, which is stale if the module does not run."""

    def __init__(self):
        super().__init__()
        self.early, self.late, self.head = Side(self), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, images):
        self.late(self.early(images))
        return self.head(self.late(self.early(images)).mean((2, 3)) + self.__dict__["side"])


class Alternating(nn.Module):
    """Model with another execution path in each call."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.late = nn.Conv2d(4, 4, 3)
        self.times = 0

    def forward(self, images):
        self.times += 1
        return self.head(self.late((self.a, self.b)[self.times % 2](images)).mean((2, 3)))


@pytest.mark.parametrize("make", [Stateful, Alternating])
def test_whole_model_runs_when_a_restart_is_impossible(make):
    model, images = make().eval(), torch.randn(1, 3, 12, 12)
    with isolated(model):
        restarted = create_restart(model, images, "late")
        assert not restarted.is_partial
        assert restarted(3, lambda output: output * 0).shape == (3, 5)


def test_failing_restart_leaves_no_trace_on_the_model():
    model, images = TinyResNet().eval(), torch.randn(1, 3, 16, 16)
    with isolated(model):
        state = snapshot_modules(model)
        restarted = create_restart(model, images, "layer2")
        assert restarted.is_partial
        with pytest.raises(ForwardError):
            restarted(2, lambda output: 1 / 0)
        assert snapshot_modules(model) == state
