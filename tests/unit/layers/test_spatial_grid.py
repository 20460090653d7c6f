"""Spatial grids of outputs: channels last, padded grids, windows and clips."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import explain
from lightning_gradcam.capture.layouts import channels_first, channels_last
from lightning_gradcam.layers.spatial_grid import GridInference
from tests.helpers.models import (
    assert_close,
    full_autograd,
    of_class,
    perturbed,
    plain_gradcam,
)
from tests.parity.architectures import randomize

tv = torchvision.models


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def test_channels_last_maps_are_recognized():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), ChannelsLast(), nn.LayerNorm(8), nn.Linear(8, 6), nn.Tanh(), nn.Flatten(),
        nn.Linear(5 * 9 * 6, 3),
    )  # fmt: skip
    images = torch.randn(2, 3, 11, 19)
    assert list(explain(perturbed(model), images).evidence) == ["4"]
    for layer in ("2", "4"):
        found = explain(model, images, layers=layer, target=2)
        assert found.layers[layer].to_grid is channels_last
        first = (tensor.movedim(-1, 1) for tensor in full_autograd(model, layer, images, of_class(2)))
        expected = plain_gradcam(*first)
        assert expected.shape == (2, 5, 9)
        assert_close(found.evidence[layer], expected)


@pytest.mark.parametrize("size", [(128, 100), (32, 72)])  # padded on the way, so the proportions are not the image's
def test_swin_grids_of_size_that_windows_do_not_divide(size):
    model = torchvision.models.swin_t().eval()
    randomize(model)
    images = torch.rand(2, 3, *size)
    seen = []
    for stage in (1, 3, 5, 7):
        model.features[stage].register_forward_hook(lambda module, args, output: seen.append(output.shape[1:3]))
    model(images)
    expected = [tuple(shape) for shape in seen[::-1]]
    found = explain(model, images, layers="stages")
    assert [tuple(evidence.shape[1:]) for evidence in found.evidence.values()] == expected


def test_grid_of_channels_last_clips_and_of_windows():
    clips = GridInference((8, 64, 64), 2)
    assert clips.read((2, 96, 4, 16, 16)) == ((4, 16, 16), channels_first)
    assert clips.read((2, 4, 16, 16, 96)) == ((4, 16, 16), channels_last)
    assert clips.read((2, 4, 2, 2, 768)) == ((4, 2, 2), channels_last)
    images = GridInference((224, 224), 2)
    assert images.read((2, 64, 56, 56))[0] == (56, 56)
    assert images.read((2, 64, 49, 64))[0] is None  # of 64 windows with 49 tokens each
    assert images.read((2, 49, 64, 64))[0] is None
    assert images.read((2, 64, 28, 28))[0] == (28, 28)
