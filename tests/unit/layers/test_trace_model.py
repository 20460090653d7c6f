"""Trace of a model: reach of the score's gradient, and models for a single image."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import explain
from tests.helpers.models import (
    perturbed,
    plain_cnn,
)
from tests.helpers.token_models import TokenViT

tv = torchvision.models


def test_trace_sees_through_head_initialized_to_zero():
    model, images = perturbed(TokenViT()), torch.randn(2, 3, 16, 24)
    nn.init.zeros_(model.head.weight)
    before = model.head.weight
    found = explain(model, images, target=1)
    assert list(found.evidence) == ["blocks.2.norm1"]
    assert found.degenerate["blocks.2.norm1"] == ("no gradient", "no gradient")
    assert model.head.weight is before
    assert not before.any()


@pytest.mark.parametrize("of", [nn.Softmax(1), nn.Sequential(nn.Linear(5, 1), nn.Sigmoid())])
def test_trace_sees_through_probabilities(of):
    model = nn.Sequential(perturbed(TokenViT()), of)
    assert list(explain(model, torch.randn(2, 3, 16, 24)).evidence) == ["0.blocks.2.norm1"]


class Aside(nn.Module):
    """Its score is connected to the last map, but does not depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aside, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(144, 3)

    def forward(self, images):
        features = self.body(images)
        return self.head(torch.where(features > -1e9, features, self.aside(features)).flatten(1))


def test_map_without_gradient_is_not_chosen():
    model, images = perturbed(Aside()), torch.randn(2, 3, 8, 8)
    assert list(explain(model, images).evidence) == ["body"]
    assert explain(model, images, layers="aside").degenerate["aside"] == ("no gradient", "no gradient")


class Table(nn.Module):
    """Adds what a small network makes of a table with one row, as relative positions are in Swin V2."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.body = nn.Conv2d(2, 1, 1), plain_cnn()

    def forward(self, images):
        return self.body(images + self.positions(torch.ones(1, 2, 15, 15))[..., :12, :12])


def test_tensor_with_one_row_is_not_taken_for_single_image():
    model, images = perturbed(Table()), torch.randn(2, 3, 12, 12)
    for rows in (images, images[:1]):
        assert list(explain(model, rows, layers="stages").evidence) == ["body.5", "body.2"]


class OnlyOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = plain_cnn()

    def forward(self, images):
        if len(images) != 1:
            raise ValueError("one image, please")
        return self.body(images)


def test_trace_supports_model_and_target_for_one_image():
    image = torch.randn(1, 3, 12, 12)
    assert list(explain(OnlyOne(), image).evidence) == ["body.5"]
    asked = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    found = explain(plain_cnn(), image, target=lambda output, probe: torch.cat([output, asked]).prod(0).sum()[None])
    assert list(found.evidence) == ["5"]


def test_trace_sees_through_class_with_inactive_relu():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 9), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with torch.no_grad():
        model[2].weight.abs_()
        model[2].bias[0] = -1e6  # nothing is ever of class 0
    assert list(explain(model, torch.rand(2, 3, 12, 12)).evidence) == ["1"]  # "3" has four cells
