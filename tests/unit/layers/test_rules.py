"""Where to look: on real models, on plain lists of shapes, and on what users say."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from hypothesis import given, strategies as st
from torch import nn

from lightning_gradcam import Layer, NotExplainableError, Probe, explain
from lightning_gradcam.capture.layer import LayerRecord, channels_last
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.layers import RULES, auto, check_layers, stages
from lightning_gradcam.targets import TARGETS
from tests.helpers.models import (
    TinyResNet,
    TinyVGG,
    assert_close,
    examples,
    full_autograd,
    of_class,
    perturbed,
    plain_cnn,
    plain_gradcam,
)

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
def test_auto_finds_the_last_feature_map(make, size, name, kind, grid):
    found = plan(make(), size)
    [layer] = found.layers
    shape = next(s for s in found.records if s.name == layer.name)
    assert (layer.name, shape.kind, shape.grid) == (name, kind, grid)
    assert layer.reason.startswith("the last feature map on the way to the score")


def test_auto_says_what_was_too_coarse():
    [layer] = plan(tv.resnet18(), 64).layers
    assert layer.reason.endswith("with at least 16 cells (the last one of all, layer4, has 2x2)")


def test_stages_are_one_per_resolution():
    assert [layer.name for layer in plan(tv.resnet18(), 96, "stages").layers] == [
        "layer4", "layer3", "layer2", "layer1", "relu",
    ]  # fmt: skip
    assert [layer.name for layer in plan(TinyVGG(), 16, "stages").layers] == ["features.4", "features.1"]


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


def test_neither_poolings_nor_dropout_nor_what_misses_the_score_is_chosen():
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
def test_rules_on_plain_lists(shapes):
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


def test_every_way_to_say_a_layer():
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)

    def first(shapes):
        return [Layer(shapes[0].name, reason="the first")]

    for said, names in [
        ("layer1", ["layer1"]),
        (model.layer1, ["layer1"]),
        (Layer("layer1"), ["layer1"]),
        (["layer2.conv1", model.layer1], ["layer2.conv1", "layer1"]),
        (first, ["layer1.conv1"]),
        ("layer2.relu", ["layer2.relu"]),  # returns the same tensor as layer2
    ]:
        found = explain(model, images, layers=said, target=1)
        assert list(found.evidence) == names
        for name in names:
            expected = plain_gradcam(*full_autograd(model, name, images, of_class(1)))
            assert_close(found.evidence[name], expected)
        check_layers(said, model)


def test_what_is_wrong_is_said():
    model, images = TinyResNet(), torch.randn(2, 3, 16, 16)
    for error, message, layers in [
        (ValueError, r"'layr2'\. Did you mean 'layer2'", "layr2"),
        (ValueError, r"'bn2'\. Did you mean 'layer1\.bn2' or 'layer2\.bn2'", "bn2"),
        (ValueError, r"'stage'\. Did you mean 'stages'", "stage"),
        (ValueError, r"'layer9'", ["layer1", "layer9"]),
        (ValueError, r"a module inside the model, but ReLU", nn.ReLU()),
        (ValueError, r"'fc' returns \[2, 5\]\. Choose another, or pass `Layer\(name, to_grid=", "fc"),
        (ValueError, r"at least one layer", []),
        (TypeError, r"but got 3", [3]),
        (NotExplainableError, r"chose no layer", lambda shapes: []),
    ]:
        with pytest.raises(error, match=message):
            explain(model, images, layers=layers)
    unused = nn.ModuleDict({"used": plain_cnn(), "spare": nn.Conv2d(3, 3, 1)})
    with pytest.raises(NotExplainableError, match=r"'spare' returned no floating-point tensor.*did not run"):
        explain(unused, images, layers="spare", forward=lambda model, probe: model["used"](probe.images))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(NotExplainableError, match=r"no module returns a spatial output.*`layers=Layer\(name, to_grid="):
        explain(flat, images)
    pooled = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(NotExplainableError, match="the only spatial outputs are poolings"):
        explain(pooled, images)


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_channels_last_maps_are_read_as_such():
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


def test_tokens_are_read_by_a_function_of_the_users():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.Flatten(2), Swap(), nn.Linear(8, 8), nn.Flatten(), nn.Linear(45 * 8, 3)
    )
    images = torch.randn(2, 3, 11, 19)

    def to_grid(tokens):
        return tokens.transpose(1, 2).unflatten(2, (5, 9))

    found = explain(perturbed(model), images, layers=Layer("3", to_grid=to_grid), target=0)
    assert_close(found.evidence["3"], plain_gradcam(*map(to_grid, full_autograd(model, "3", images, of_class(0)))))
    assert_close(explain(model, images, target=0).evidence["3"], found.evidence["3"])  # found without being told
    mixed = nn.Sequential(model[0], nn.Flatten(2), nn.Linear(45, 20), nn.Flatten(), nn.Linear(160, 3))
    said = explain(mixed, images).layers["0"].reason
    assert "behind it 2 layers return sequences, the last 2 [2, 8, 20]" in said


def test_names_are_the_models_also_where_it_is_compiled():
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)
    compiled = torch.compile(model)
    found = explain(compiled, images, target=1)
    assert list(found.evidence) == ["layer2"]
    assert_close(found.evidence["layer2"], explain(model, images, target=1).evidence["layer2"])


class TinyViT(nn.Module):
    """A Vision Transformer of three blocks for images of 16x24, with its tokens in front, read as told.

    Its modules are named and nested as those of timm; queries, keys and values are modules of their own.
    """

    def __init__(self, extra: int = 1, patches: str = "conv", pool: str = "token", rows: int = 0) -> None:
        super().__init__()
        width = 8
        self.conv = nn.Conv2d(3, width, 4, 4) if patches == "conv" else nn.Unfold(4, stride=4)
        self.embed = nn.Identity() if patches == "conv" else nn.Linear(48, width)
        self.front = nn.Parameter(torch.randn(1, extra, width)) if extra else torch.zeros(1, 0, width)
        self.place = nn.Parameter(torch.randn(1, extra + 24, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, rows) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)
        self.extra, self.pool, self.rows = extra, pool, rows

    def forward(self, images):
        patches = self.embed(self.conv(images).flatten(2).transpose(1, 2))
        tokens = torch.cat([self.front.expand(len(images), -1, -1), patches], 1) + self.place
        tokens = self.norm(self.blocks(tokens.movedim(0, self.rows)).movedim(self.rows, 0))
        return self.head(tokens[:, 0] if self.pool == "token" else tokens[:, self.extra :].mean(1))


class TransformerBlock(nn.Module):
    def __init__(self, width, rows) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), Attention(width, rows), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens):
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Two heads, with normalised queries and keys and a module that mixes heads: outputs of four dimensions."""

    def __init__(self, width, rows) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.mix, self.rows = nn.LayerNorm(width // 2), nn.Linear(2, 2), rows

    def forward(self, tokens):
        tokens = tokens.movedim(self.rows, 0)
        query, key, value = (
            of(tokens).unflatten(2, (2, -1)).transpose(1, 2) for of in (self.query, self.key, self.value)
        )
        weights = self.norm(query) @ self.norm(key).transpose(2, 3)
        weights = self.mix(weights.movedim(1, 3)).movedim(3, 1).softmax(3)
        return self.out((weights @ value).transpose(1, 2).flatten(2)).movedim(0, self.rows)


@pytest.mark.parametrize(("settings", "name", "extra"), [
    ({}, "blocks.2.norm1", 1),  # behind it, patches only make queries, keys and values
    ({"extra": 5}, "blocks.2.norm1", 5),
    ({"extra": 5, "pool": "mean"}, "norm", 5),
    ({"extra": 0, "pool": "mean"}, "norm", 0),
    ({"patches": "unfold"}, "blocks.2.norm1", 1),
    ({"rows": 1}, "blocks.2.norm1", 1),
    ({"rows": 1, "patches": "unfold"}, "blocks.2.norm1", 1),
])  # fmt: skip
def test_tokens_that_reach_the_score(settings, name, extra):
    model, images = perturbed(TinyViT(**settings)), torch.randn(3, 3, 16, 24)
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


def test_a_head_that_is_zero_at_first_hides_no_reach():
    model, images = perturbed(TinyViT()), torch.randn(2, 3, 16, 24)
    nn.init.zeros_(model.head.weight)
    before = model.head.weight
    found = explain(model, images, target=1)
    assert list(found.evidence) == ["blocks.2.norm1"]
    assert found.degenerate["blocks.2.norm1"] == ("no gradient", "no gradient")
    assert model.head.weight is before
    assert not before.any()


class AttentionPool(nn.Module):
    """One vector of all tokens: what it makes of them is a branch that ends here."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(8, 1), nn.Linear(8, 6)

    def forward(self, tokens):
        return (self.key(tokens).softmax(1) * self.value(tokens)).sum(1)


class Shared(nn.Module):
    """One activation for a map and for the tokens that it becomes; pools these by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.mix = nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Linear(8, 8)
        self.pool, self.head = AttentionPool(), nn.Linear(6, 5)

    def forward(self, images):
        tokens = self.act(self.conv(images)).flatten(2).transpose(1, 2)
        return self.head(self.pool(self.act(self.mix(tokens))))


def test_what_an_attention_pooling_is_given_is_chosen_and_not_what_it_projects():
    model, images = perturbed(Shared()), torch.randn(2, 3, 16, 24)
    assert list(explain(model, images).evidence) == ["act"]
    assert list(explain(model, images, layers="pool.value").evidence) == ["pool.value"]


def test_every_call_of_a_layer_has_a_layout_of_its_own():
    model, images = perturbed(Shared()), torch.randn(2, 3, 16, 24)
    calls = [Layer("act", call=0), Layer("act", call=1), Layer("act")]
    found = explain(model, images, layers=calls, target=3)
    kept = []
    unrolled = copy.deepcopy(model).double()
    unrolled.act.register_forward_hook(lambda module, args, output: kept.append(output))
    scores = unrolled(images.double().requires_grad_())[:, 3].sum()
    first, last = ((tensor, grad) for tensor, grad in zip(kept, torch.autograd.grad(scores, kept), strict=True))
    expected = plain_gradcam(*(t.transpose(1, 2).unflatten(2, (4, 6)).detach() for t in last))
    assert_close(found.evidence["act[0]"], plain_gradcam(first[0].detach(), first[1]))
    assert_close(found.evidence["act[1]"], expected)
    assert_close(found.evidence["act"], expected)


@pytest.mark.parametrize("of", [nn.Softmax(1), nn.Sequential(nn.Linear(5, 1), nn.Sigmoid())])
def test_reach_is_seen_through_probabilities(of):
    model = nn.Sequential(perturbed(TinyViT()), of)
    assert list(explain(model, torch.randn(2, 3, 16, 24)).evidence) == ["0.blocks.2.norm1"]


class Aside(nn.Module):
    """Its score is connected to the last map, but does not depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aside, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(144, 3)

    def forward(self, images):
        features = self.body(images)
        return self.head(torch.where(features > -1e9, features, self.aside(features)).flatten(1))


def test_a_map_without_gradient_is_not_chosen():
    model, images = perturbed(Aside()), torch.randn(2, 3, 8, 8)
    assert list(explain(model, images).evidence) == ["body"]
    assert explain(model, images, layers="aside").degenerate["aside"] == ("no gradient", "no gradient")
