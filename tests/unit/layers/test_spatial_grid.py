"""How outputs are read: stacks of blocks, padded and anisotropic grids, windows, and a single image."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import NotExplainableError, Variant, explain
from lightning_gradcam.capture.layer import channels_first, channels_last
from lightning_gradcam.layers import check_layers
from lightning_gradcam.layers.spatial_grid import GridInference
from tests.helpers.models import assert_close, full_autograd, of_class, perturbed, plain_cnn, plain_gradcam
from tests.parity.architectures import randomize


class Encoder(nn.Module):
    """A Vision Transformer as written by hand, from PyTorch's own encoder."""

    def __init__(self, depth: int, norm_first: bool, dimensions: int = 2) -> None:
        super().__init__()
        self.patches = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(3, 16, 4, 4)
        block = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.token, self.norm, self.head = nn.Parameter(torch.randn(1, 1, 16)), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, images):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.encoder(torch.cat([self.token.expand(len(images), -1, -1), patches], 1))
        return self.head(self.norm(tokens)[:, 0])


@pytest.mark.parametrize(("depth", "norm_first", "name"), [
    (3, False, "encoder.layers.1"),  # the input of the last attention; not the convolution before the encoder
    (3, True, "encoder.layers.2.norm1"),
    (1, True, "encoder.layers.0.norm1"),
    (1, False, "patches"),
])  # fmt: skip
def test_the_last_tokens_that_reach_the_score_in_a_stack_of_blocks(depth, norm_first, name):
    model, images = perturbed(Encoder(depth, norm_first)), torch.randn(3, 3, 16, 24)
    found = explain(model, images, target=[1, 4, 0])
    assert list(found.evidence) == [name]
    if name != "patches":
        both = (
            t[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
            for t in full_autograd(model, name, images, of_class([1, 4, 0]))
        )
        assert_close(found.evidence[name], plain_gradcam(*both), 1e-4)
    volumes = perturbed(Encoder(depth, norm_first, 3))
    assert explain(volumes, torch.randn(2, 3, 8, 12, 16), target=1).evidence[name].shape == (2, 2, 3, 4)


@pytest.mark.parametrize("size", [(128, 100), (32, 72)])  # padded on the way, so the proportions are not the image's
def test_swin_of_a_size_that_its_windows_do_not_divide(size):
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


def test_clips_in_channels_last_and_windows_as_rows():
    clips = GridInference((8, 64, 64), 2)
    assert clips.read((2, 96, 4, 16, 16)) == ((4, 16, 16), channels_first)
    assert clips.read((2, 4, 16, 16, 96)) == ((4, 16, 16), channels_last)
    assert clips.read((2, 4, 2, 2, 768)) == ((4, 2, 2), channels_last)
    images = GridInference((224, 224), 2)
    assert images.read((2, 64, 56, 56))[0] == (56, 56)
    assert images.read((2, 64, 49, 64))[0] is None  # of 64 windows with 49 tokens each
    assert images.read((2, 49, 64, 64))[0] is None
    assert images.read((2, 64, 28, 28))[0] == (28, 28)


@pytest.mark.slow
def test_stages_of_maxvit_are_its_four_stages_and_the_stem():
    model = torchvision.models.maxvit_t().eval()
    randomize(model)
    found = explain(model, torch.rand(1, 3, 224, 224), layers="stages", fuse="weighted")
    assert list(found.layers) == ["fused", "blocks.3", "blocks.2", "blocks.1", "blocks.0", "stem"]


class Table(nn.Module):
    """Adds what a small network makes of a table with one row, as relative positions are in Swin V2."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.body = nn.Conv2d(2, 1, 1), plain_cnn()

    def forward(self, images):
        return self.body(images + self.positions(torch.ones(1, 2, 15, 15))[..., :12, :12])


def test_one_image_is_not_taken_for_what_has_one_row():
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


def test_a_model_and_a_target_made_for_one_image_are_served():
    image = torch.randn(1, 3, 12, 12)
    assert list(explain(OnlyOne(), image).evidence) == ["body.5"]
    asked = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    found = explain(plain_cnn(), image, target=lambda output, probe: torch.cat([output, asked]).prod(0).sum()[None])
    assert list(found.evidence) == ["5"]


def test_a_class_that_ends_in_a_relu_that_is_off_hides_no_reach():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 9), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with torch.no_grad():
        model[2].weight.abs_()
        model[2].bias[0] = -1e6  # nothing is ever of class 0
    assert list(explain(model, torch.rand(2, 3, 12, 12)).evidence) == ["1"]  # "3" has four cells


def test_what_is_wrong_is_said():
    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    for layers in (None, 4):
        for ask in (lambda said: explain(model, images, layers=said), lambda said: check_layers(said, model)):
            with pytest.raises(TypeError, match=f"a module, a Layer or a rule, or a list of these, but got {layers}"):
                ask(layers)
    for size in (8, (8,), (0, 4)):
        with pytest.raises(ValueError, match=r"Expected `size` of 2 positive numbers, as \(12, 12\), but got"):
            explain(model, images).heatmaps(size=size)
    for scale in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="Expected `scale` to be None or a number over 0, but got"):
            explain(model, images).heatmaps(scale=scale)
    with pytest.raises(TypeError, match="Expected `flips` to be True or False, but got 'yes'"):
        explain(model, images, flips="yes")
    with pytest.raises(TypeError, match="the name of a registered method, but got <"):
        Variant(lambda activations, gradients: activations.sum(1))
    with pytest.raises(ValueError, match=r"'GradCAM'\. Did you mean 'gradcam'"):
        explain(model, images, method="GradCAM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that TorchScript is deprecated
        part = torch.jit.trace(model[:6].eval(), images)
    with pytest.raises(NotExplainableError, match=r"Layer '0'.* In this model, 0 is TorchScript.*the eager module"):
        explain(nn.Sequential(part, *model[6:]), images, layers="0")
