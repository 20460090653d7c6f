"""Backward rules of ReLUs, however the ReLU is written."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.models import assert_close, perturbed
from tests.helpers.pixel_methods import compute_evidence
from tests.helpers.pixel_replicas import REPLICAS


class Network(nn.Module):
    """Network whose ReLUs are written in one of several ways."""

    def __init__(self, relu):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.relu, self.function = relu, None

    def forward(self, images):
        relu = self.function or self.relu
        x = relu(self.first(images))
        return self.head(relu(self.second(x) + x[:, :, 1:-1, 1:-1] - 0.5).mean((2, 3)))


def apply_in_place(x):
    F.relu(x, inplace=True)
    return x


SPELLINGS = {
    "function": F.relu, "in place": lambda x: F.relu(input=x, inplace=True), "result ignored": apply_in_place,
    "torch": torch.relu, "torch, in place": torch.relu_, "method": lambda x: x.relu(), "method, in place":
    lambda x: x.relu_(), "module": nn.ReLU(inplace=True), "not bounded": lambda x: F.hardtanh(x, 0, 1e6),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution"])
def test_rule_applies_to_every_spelling_of_relu(spelling, name):
    model, images = perturbed(Network(nn.ReLU())), torch.randn(2, 3, 12, 12)
    expected = compute_evidence(model, images, name, target=1)
    assert_close(expected[0], REPLICAS[name](model.double(), images[0].double(), 1), 1e-5)
    model.float().function = SPELLINGS[spelling]
    torch.testing.assert_close(compute_evidence(model, images, name, target=1), expected)


def test_guided_rule_applies_to_relu6():
    model, images = perturbed(Network(nn.ReLU6())), torch.randn(2, 3, 12, 12) * 8
    assert (F.relu(model.first(images)) > 6).any()
    evidence = compute_evidence(model, images, "guided_backprop", target=1)
    model.function = F.relu6
    torch.testing.assert_close(compute_evidence(model, images, "guided_backprop", target=1), evidence)
    model.function, copied = None, model.double()
    copied.relu.register_full_backward_hook(lambda _, inputs, outputs: (inputs[0].clamp_min(0),))
    batch = images[:1].double().requires_grad_()
    copied(batch)[0, 1].backward()
    assert_close(evidence[0], batch.grad[0].abs().amax(0), 1e-5)
