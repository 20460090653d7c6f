"""Ranked candidates."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import explain, recommended_layers
from tests.helpers.models import (
    TinyResNet,
    perturbed,
    plain_cnn,
)
from tests.helpers.token_models import TokenViT

tv = torchvision.models


@pytest.mark.parametrize(("make", "shape"), [
    (TinyResNet, (3, 16, 16)),
    (TokenViT, (3, 16, 24)),
    (lambda: torchvision.models.resnet18(num_classes=5), (3, 96, 96)),
    (lambda: nn.Sequential(nn.Conv1d(2, 6, 5), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 20, 3)), (2, 24)),
])  # fmt: skip
def test_candidates_start_with_auto_and_are_explainable(make, shape):
    model, images = perturbed(make()), torch.randn(2, *shape)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = recommended_layers(model, images)
    assert [c.rank for c in found] == list(range(1, len(found) + 1))
    assert {c.layer.key: c.layer for c in found[:1]} == explain(model, images).layers
    assert len({c.layer.key for c in found}) == len(found)
    for candidate in found:
        assert 0 < candidate.reach <= 1
        evidence = explain(model, images, layers=candidate.layer, target=0).evidence[candidate.layer.key]
        assert tuple(evidence.shape[1:]) == candidate.grid
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].rank = 2


def test_candidates_print_as_table():
    torch.manual_seed(1)
    text = str(recommended_layers(perturbed(torchvision.models.resnet18(num_classes=5)), torch.rand(2, 3, 64, 64)))
    names = [line.split()[1] for line in text.splitlines()[1:]]
    assert names == ["layer3", "layer2", "layer1", "relu", "layer4"]  # too coarse comes last
    assert text.splitlines()[0].split() == ["layer", "map", "reach", "made", "by", "reason"]
    assert "with at least 16 cells (the last one of all, layer4, has 2x2)" in text.splitlines()[1]


def test_reach_is_fraction_of_positions():
    corner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), Corner(), nn.Linear(16, 3))
    [first, *_] = recommended_layers(perturbed(corner), torch.rand(2, 3, 8, 8))
    assert (first.layer.name, first.grid, first.reach) == ("1", (8, 8), 4 / 64)


class Corner(nn.Module):
    def forward(self, x):
        return x[:, :, :2, :2].flatten(1)


def test_recommended_layers_takes_arguments_of_explain():
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    called = recommended_layers(
        nn.ModuleDict({"one": model}),
        images,
        target=lambda out, probe: out[:, 1],
        forward=lambda m, p: m["one"](p.images),
    )
    assert called[0].layer.name == "one.5"
