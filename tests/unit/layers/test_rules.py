"""Rules `auto` and `stages`, on real models and on plain lists of records."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given, strategies as st
from torch import nn

from lightning_gradcam import NotExplainableError, Probe, explain
from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.layers import RULES, auto, stages
from lightning_gradcam.targets import TARGETS
from tests.helpers.models import (
    TinyResNet,
    TinyVGG,
    assert_close,
    examples,
    full_autograd,
    of_class,
    perturbed,
    plain_gradcam,
)
from tests.helpers.token_models import Shared, TokenViT
from tests.parity.architectures import randomize

tv = torchvision.models


def plan(model, size, layers="auto", channels=3):
    return prepare(model, Probe(torch.rand(2, channels, size, size)), layers=layers, target=TARGETS["predicted"])


def vgg11():
    with torch.device("meta"):
        model = tv.vgg11(init_weights=False)
    model.classifier = nn.Linear(512 * 49, 5)
    model.features.to_empty(device="cpu")
    return model


@pytest.mark.parametrize(("make", "size", "name", "kind", "grid"), [
    (tv.resnet18, 224, "layer4", "ReLU", (7, 7)),
    (tv.resnet18, 32, "layer2", "ReLU", (4, 4)),  # layer3 has 2x2 and layer4 a single cell
    (vgg11, 224, "features.19", "ReLU", (14, 14)),  # and not the pooling behind it
    (tv.mobilenet_v3_small, 64, "features.8", "InvertedResidual", (4, 4)),  # not one branch of the block that halves
    (tv.densenet121, 224, "features", "BatchNorm2d", (7, 7)),
    (tv.efficientnet_b0, 224, "features", "SiLU", (7, 7)),
    (tv.mobilenet_v2, 224, "features", "ReLU6", (7, 7)),
    (tv.mobilenet_v3_small, 224, "features", "Hardswish", (7, 7)),
    (tv.swin_t, 64, "features.5", "SwinTransformerBlock", (4, 4)),  # channels last
    (TinyResNet, 16, "layer2", "ReLU", (8, 8)),  # registered before layer1, and behind the head
    (TinyVGG, 16, "features.4", "ReLU", (8, 8)),
])  # fmt: skip
def test_auto_chooses_last_feature_map(make, size, name, kind, grid):
    found = plan(make(), size)
    [layer] = found.layers
    shape = next(s for s in found.records if s.name == layer.name)
    assert (layer.name, shape.kind, shape.grid) == (name, kind, grid)
    assert layer.reason.startswith("the last feature map on the way to the score")


def test_auto_reason_names_grid_that_is_too_coarse():
    [layer] = plan(tv.resnet18(), 64).layers
    assert layer.reason.endswith("with at least 16 cells (the last one of all, layer4, has 2x2)")


def test_stages_choose_one_layer_per_resolution():
    assert [layer.name for layer in plan(tv.resnet18(), 96, "stages").layers] == [
        "layer4", "layer3", "layer2", "layer1", "relu",
    ]  # fmt: skip
    assert [layer.name for layer in plan(TinyVGG(), 16, "stages").layers] == ["features.4", "features.1"]


@pytest.mark.slow
def test_stages_of_maxvit_are_four_stages_and_stem():
    model = torchvision.models.maxvit_t().eval()
    randomize(model)
    found = explain(model, torch.rand(1, 3, 224, 224), layers="stages", fuse="weighted")
    assert list(found.layers) == ["fused", "blocks.3", "blocks.2", "blocks.1", "blocks.0", "stem"]


class Odd(nn.Module):
    """Poolings, what hands its input through, and an unused branch behind the last feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Tanh(), torchvision.ops.StochasticDepth(0.5, "row"), nn.MaxPool2d(3, 1, 1),
            nn.AvgPool2d(3, 1, 1), nn.Dropout2d(), nn.Identity(),
            nn.AdaptiveMaxPool2d(5), nn.LPPool2d(2, 1), nn.FractionalMaxPool2d(1, output_size=5),
        )  # fmt: skip

    def forward(self, images):
        features = self.body(images)
        self.unused(features)
        return self.head(features.mean((2, 3)))


def test_auto_skips_pooling_dropout_and_unused_branches():
    found = plan(Odd(), 12)
    assert [layer.name for layer in found.layers] == ["body.1"]
    assert [layer.name for layer in plan(Odd(), 12, "stages").layers] == ["body.1"]
    assert next(s for s in found.records if s.name == "unused").reaches is False


KINDS = ("Conv2d", "ReLU", "Bottleneck", "MaxPool2d", "AdaptiveAvgPool2d", "Flatten", "Dropout", "Identity", "DropPath")

traces = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from([None, 1, 2, 3, 4, 7]), st.sampled_from([True, True, False])),
    max_size=8,
).map(lambda rows: [
    LayerRecord(f"m{i}", kind, (2, 8, side, side) if side else (2, 8), (side, side) if side else None, reaches=reaches)
    for i, (kind, side, reaches) in enumerate(rows)
])  # fmt: skip


@examples(200)
@given(traces)
def test_rules_on_plain_records(shapes):
    usable = [s for s in shapes if s.kind in KINDS[:3] and s.reaches and s.grid not in (None, (1, 1))]
    if not usable:
        for rule in RULES.values():
            with pytest.raises(NotExplainableError, match=r"No layer to explain: .*`(layers=|forward|target=)"):
                rule(shapes)
        return
    for rule in RULES.values():
        assert {layer.name for layer in rule(shapes)} <= {s.name for s in usable}
        assert all(layer.reason for layer in rule(shapes))
    enough = [s for s in usable if s.cells >= 16] or [s for s in usable if s.cells == max(u.cells for u in usable)]
    assert [layer.name for layer in auto(shapes)] == [enough[-1].name]
    last = [s.name for i, s in enumerate(usable) if s.grid not in [later.grid for later in usable[i + 1 :]]]
    assert [layer.name for layer in stages(shapes)] == last[::-1]


@pytest.mark.parametrize(("settings", "name", "extra"), [
    ({}, "blocks.2.norm1", 1),  # behind it, patches only make queries, keys and values
    ({"extra": 5}, "blocks.2.norm1", 5),
    ({"extra": 5, "pool": "mean"}, "norm", 5),
    ({"extra": 0, "pool": "mean"}, "norm", 0),
    ({"patches": "unfold"}, "blocks.2.norm1", 1),
    ({"rows": 1}, "blocks.2.norm1", 1),
    ({"rows": 1, "patches": "unfold"}, "blocks.2.norm1", 1),
])  # fmt: skip
def test_vit_tokens_that_reach_score_are_chosen(settings, name, extra):
    model, images = perturbed(TokenViT(**settings)), torch.randn(3, 3, 16, 24)
    for layers in ("auto", "stages"):
        found = explain(model, images, layers=layers, target=[1, 4, 0])
        assert list(found.evidence) == [name]
    tokens = (
        tensor.movedim(settings.get("rows", 0), 0) for tensor in full_autograd(model, name, images, of_class([1, 4, 0]))
    )
    of_patches = (t[:, extra:].transpose(1, 2).unflatten(2, (4, 6)) for t in tokens)
    assert_close(found.evidence[name], plain_gradcam(*of_patches))
    assert found.layers[name].reason
    given = explain(model, images, layers=name, target=[1, 4, 0])
    assert torch.equal(given.evidence[name], found.evidence[name])


def test_attention_pooling_input_is_chosen():
    model, images = perturbed(Shared()), torch.randn(2, 3, 16, 24)
    assert list(explain(model, images).evidence) == ["act"]
    assert list(explain(model, images, layers="pool.value").evidence) == ["pool.value"]


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
def test_encoder_last_tokens_that_reach_score_are_chosen(depth, norm_first, name):
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
