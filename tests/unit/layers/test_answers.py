"""The model's own output is not explained where features lead to it, and flat maps are no tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam import explain


def conv(channels: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, size, padding=size // 2)


class Head(nn.Module):
    """A convolution, and what ``finish`` makes of its numbers without another module."""

    def __init__(self, outputs: int, finish) -> None:
        super().__init__()
        self.last = conv(8, outputs, 1)
        self.finish = finish

    def forward(self, features):
        return self.finish(self.last(features))


def explain_output(model: nn.Module, *size: int):
    """Explain a sum of the output's positions, weighted so that they differ."""
    torch.manual_seed(0)
    weights = torch.linspace(1, 2, 4096)
    found = explain(
        model.eval(),
        torch.rand(2, *size),
        target=lambda output, probe: (output.flatten(1) * weights.repeat(99)[: output[0].numel()]).sum(1),
    )
    [layer] = found.layers.values()
    return layer, found


@pytest.mark.parametrize(("finish", "grid"), [
    (lambda x: x, (16, 16)),
    (torch.sigmoid, (16, 16)),
    (lambda x: 10 * x[:, 1:], (16, 16)),
    (lambda x: nn.functional.interpolate(x, scale_factor=2.0), (16, 16)),
])  # fmt: skip
def test_output_of_head_is_not_explained(finish, grid):
    layer, found = explain_output(nn.Sequential(conv(3, 8), nn.ReLU(), Head(5, finish)), 3, 16, 16)
    assert layer.name == "1"
    assert found.evidence["1"].shape[1:] == grid


def test_bounded_heatmaps_are_not_explained():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 5), nn.Sigmoid())
    assert explain_output(model, 3, 16, 16)[0].name == "1"


def test_features_that_an_encoder_returns_are_explained():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU())
    assert explain_output(model, 3, 16, 16)[0].name == "3"


class Depth(nn.Module):
    """Depth ``(N, 64, 64)`` of images of that size, which is no 64 tokens of 64 channels."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU())
        self.up = nn.Sequential(nn.Upsample(scale_factor=8), conv(8, 8), nn.ReLU())
        self.head = Head(2, lambda x: x.mean(1))
        self.after = after

    def forward(self, images):
        return 10 * self.after(self.head(self.up(self.down(images))))


@pytest.mark.parametrize("after", [nn.Identity(), nn.Sigmoid(), nn.Hardtanh()])
def test_depth_image_is_not_taken_for_tokens(after):
    layer, found = explain_output(Depth(after), 3, 64, 64)
    assert not found.layers[layer.key].reason.count("token")
    assert found.evidence[layer.key].shape[1:] == (64, 64)
    assert layer.name in ("up", "head.last")


class Enlarged(nn.Module):
    """A map of 32x32, and one of 16 channels on 64x64, enlarged without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.up = nn.Sequential(conv(8, 16), nn.ReLU())
        self.scores = conv(16, 4)

    def forward(self, images):
        return self.scores(self.up(nn.functional.interpolate(self.down(images), scale_factor=2.0)))


def test_full_map_with_the_numbers_of_windows_has_a_grid():
    """The map ``(16, 64, 64)`` has 16 * 64 = 32 * 32 rows, as many as the grid before has cells."""
    assert explain_output(Enlarged(), 3, 64, 64)[0].name == "up"
