"""Ranked candidates, and what cannot be explained: each says why."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import Layer, NotExplainableError, explain, recommended_layers
from tests.helpers.models import TinyResNet, perturbed, plain_cnn
from tests.unit.layers.test_rules import TinyViT


@pytest.mark.parametrize(("make", "shape"), [
    (TinyResNet, (3, 16, 16)),
    (TinyViT, (3, 16, 24)),
    (lambda: torchvision.models.resnet18(num_classes=5), (3, 96, 96)),
    (lambda: nn.Sequential(nn.Conv1d(2, 6, 5), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 20, 3)), (2, 24)),
])  # fmt: skip
def test_the_first_is_what_auto_uses_and_all_can_be_explained(make, shape):
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


def test_they_print_as_a_table():
    torch.manual_seed(1)
    text = str(recommended_layers(perturbed(torchvision.models.resnet18(num_classes=5)), torch.rand(2, 3, 64, 64)))
    names = [line.split()[1] for line in text.splitlines()[1:]]
    assert names == ["layer3", "layer2", "layer1", "relu", "layer4"]  # too coarse comes last
    assert text.splitlines()[0].split() == ["layer", "map", "reach", "made", "by", "reason"]
    assert "with at least 16 cells (the last one of all, layer4, has 2x2)" in text.splitlines()[1]


def test_reach_counts_places():
    corner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), Corner(), nn.Linear(16, 3))
    [first, *_] = recommended_layers(perturbed(corner), torch.rand(2, 3, 8, 8))
    assert (first.layer.name, first.grid, first.reach) == ("1", (8, 8), 4 / 64)


class Corner(nn.Module):
    def forward(self, x):
        return x[:, :, :2, :2].flatten(1)


def test_they_take_what_explain_takes():
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    called = recommended_layers(
        nn.ModuleDict({"one": model}),
        images,
        target=lambda out, probe: out[:, 1],
        forward=lambda m, p: m["one"](p.images),
    )
    assert called[0].layer.name == "one.5"


class Session:
    """As an ONNX session."""


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that TorchScript is deprecated
        return torch.jit.trace(plain_cnn().eval(), torch.rand(2, 3, 12, 12))


def quantised(to_the_end):
    """A model whose body is quantised, or all of it."""
    from torch.ao import quantization

    body, head = [nn.Conv2d(3, 4, 3), nn.ReLU()], [nn.Flatten(), nn.Linear(400, 3)]
    model = nn.Sequential(nn.Sequential(quantization.QuantStub(), *body, *(head if to_the_end else [])))
    model.extend([quantization.DeQuantStub(), *([] if to_the_end else head)]).eval()
    model[0].qconfig = model[1].qconfig = quantization.get_default_qconfig(
        torch.backends.quantized.supported_engines[-1]
    )
    quantization.prepare(model, inplace=True)
    model(torch.rand(2, 3, 12, 12))
    return quantization.convert(model, inplace=True)


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), nn.Linear(400, 3)

    def forward(self, images):
        return self.head(self.body(images).detach().flatten(1))


class Guarded(Detached):
    """The functions behind its map, or what makes the map as well, in a block of its own."""

    def __init__(self, block, whole):
        super().__init__()
        self.block, self.whole = block, whole

    def forward(self, images):
        found = None if self.whole else self.body(images)
        with self.block():
            flat = (self.body(images) if self.whole else found).flatten(1) * 1
        return self.head(flat)


class Functional(nn.Module):
    def forward(self, images):
        return images.flatten(2).mean(2)


class Beside(nn.Module):
    """Two branches, of which the score is computed from one."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = plain_cnn(), nn.Conv2d(3, 4, 3)

    def forward(self, images):
        self.unused(images)
        return self.used(images)


@pytest.mark.parametrize(("make", "error", "message"), [
    (Session, TypeError, r"a torch\.nn\.Module, but got Session.* pass the module that it was made from"),
    (scripted, NotExplainableError, r"is a TorchScript module, whose layers take no hooks\. Pass the eager model"),
    (lambda: nn.Sequential(scripted()), NotExplainableError, r"no module returns a.*this model, 0 is TorchScript"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 3)), NotExplainableError, r"no module returns a spatial"),
    (Detached, NotExplainableError, r"no gradient .* reaches the 2 spatial outputs\. .* A detach, .* cuts it off"),
    (lambda: Guarded(torch.no_grad, False), NotExplainableError, r"A detach, a no_grad behind them, .* cuts it off"),
    (lambda: Guarded(torch.inference_mode, True), NotExplainableError, r"an inference_mode or .* out of `forward`"),
    (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 3)), NotExplainableError,
     r"the only spatial outputs are poolings, or the scores of pixels\. .*: 0 \[2, 3, 6, 6\].*Name one in `layers=`"),
    (Functional, NotExplainableError, r"no module returns a tensor .*What functions do, or .* an exported model"),
])  # fmt: skip
def test_what_cannot_be_explained_says_why(make, error, message):
    model, images = make(), torch.rand(2, 3, 12, 12)
    for ask in (explain, recommended_layers):
        with pytest.raises(error, match=message):
            ask(model, images)


@pytest.mark.filterwarnings("ignore")  # PyTorch says that its quantisation moves elsewhere
def test_a_quantised_model_says_so():
    images = torch.rand(2, 3, 12, 12)
    for ask in (explain, recommended_layers):
        with pytest.raises(NotExplainableError, match=r"In this model, 0\.\d is quantised, and .*floating-point model"):
            ask(quantised(to_the_end=True), images)
    with pytest.raises(
        NotExplainableError, match=r"Layer '0.1' returned no floating.* In this model, 0\.\d is quantised"
    ):
        explain(quantised(to_the_end=True), images, layers="0.1")
    behind = explain(quantised(to_the_end=False), images)
    assert list(behind.evidence) == ["1"]  # what was turned back into floating-point numbers has a gradient


def test_what_is_not_chosen_can_be_named():
    pooled = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 3))
    assert explain(pooled, torch.rand(2, 3, 12, 12), layers="0").evidence["0"].shape == (2, 6, 6)
    whole = explain(Guarded(torch.no_grad, True), torch.rand(2, 3, 12, 12), layers="body.0")  # no_grad is lifted there
    assert whole.evidence["body.0"].any()


def test_a_layer_that_no_gradient_reaches():
    vit, images = perturbed(TinyViT()), torch.rand(2, 3, 16, 24)
    with pytest.raises(NotExplainableError, match=r"reaches layer 'norm' \(its patch tokens: .*recommended_layers"):
        explain(vit, images, layers="norm")
    with pytest.raises(
        NotExplainableError, match=r"reaches layer 'unused' \(a detach, a no_grad, .* is computed without it\)"
    ):
        explain(Beside(), torch.rand(2, 3, 12, 12), layers="unused")
    first = lambda tokens: tokens[:, :1].transpose(1, 2)  # noqa: E731
    read = explain(vit, images, layers=Layer("norm", to_grid=lambda tokens: first(tokens)[..., None]))
    assert read.evidence["norm"].shape == (2, 1, 1)  # how users read it is theirs
    free = explain(vit, images, layers="norm", method=lambda passes: {"norm": passes.activations["norm"].sum(1)})
    assert free.evidence["norm"].shape == (2, 4, 6)  # and what needs no gradient needs no reach
