"""Hooks: models that guard, reuse or wrap their layers, and how little is kept for backward."""

from __future__ import annotations

import copy
from collections import namedtuple
from contextlib import nullcontext

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import Layer, NotExplainableError, Probe, explain
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.targets import TARGETS
from tests.helpers.models import TinyResNet, assert_close, full_autograd, of_class, perturbed, plain_cnn, plain_gradcam


class Guarded(nn.Module):
    """Runs its features in a no_grad block of its own."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.inner, self.whole = plain_cnn(), whole

    def forward(self, images):
        with torch.no_grad():
            x = self.inner[:6](images)
            if self.whole:
                return self.inner[6:](x)
        return self.inner[6:](x)


@pytest.mark.parametrize("whole", [False, True])
def test_capture_inside_no_grad_block_of_the_model(whole):
    model, images = perturbed(Guarded(whole)), torch.randn(2, 3, 12, 12)
    expected = plain_gradcam(*full_autograd(model.inner, "5", images, of_class(1)))
    found = explain(model, images, target=1)
    assert list(found.evidence) == ["inner.5"]
    assert_close(found.evidence["inner.5"], expected)


class Halves(nn.Module):
    """An early half in a block of its own, the late one behind it."""

    def __init__(self, block) -> None:
        super().__init__()
        self.early, self.late = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), nn.Conv2d(4, 4, 3, 2)
        self.head, self.block = nn.Linear(64, 3), block

    def forward(self, images):
        with self.block():
            x = self.early(images) * 1
        return self.head(self.late(x).tanh().flatten(1))


class Parallel(Halves):
    def forward(self, images):
        return self.head((self.late(self.early(images)) * self.late(self.early(images + 1))).flatten(1))


def test_layers_inside_and_after_a_no_grad_block():
    model, images = perturbed(Halves(torch.no_grad)), torch.randn(2, 3, 12, 12)
    free = copy.deepcopy(model)
    free.block = torch.enable_grad
    for layers in (["early", "late"], ["late", "early"], "stages"):
        found = explain(model, images, layers=layers, target=1)
        assert set(found.evidence) == {"early", "late"}
        for layer, evidence in found.evidence.items():
            assert_close(evidence, plain_gradcam(*full_autograd(free, layer, images, of_class(1))))


@pytest.mark.parametrize(("make", "layers", "runs"), [
    (lambda: Halves(nullcontext), ["early", "late"], 1),
    (lambda: Parallel(nullcontext), [Layer("early", call=0), Layer("early", call=1), "late"], 1),
    (lambda: Halves(torch.no_grad), ["late"], 1),
    (lambda: Halves(torch.no_grad), ["early", "late"], 2),  # the price of the early one
])  # fmt: skip
def test_second_pass_runs_only_if_a_gradient_would_be_lost(make, layers, runs):
    model, images, target = perturbed(make()), torch.randn(2, 3, 12, 12), TARGETS["predicted"]
    ran = []
    forward = lambda model, probe: ran.append(1) or model(probe.images)  # noqa: E731
    plan = prepare(model, Probe(images), layers=layers, target=target, forward=forward)
    ran.clear()
    plan(model, Probe(images), [target])
    assert len(ran) == runs


def test_inference_mode_block_of_the_model():
    model, images = perturbed(Halves(torch.inference_mode)), torch.randn(2, 3, 12, 12)
    assert list(explain(model, images).evidence) == ["late"]
    free = copy.deepcopy(model)
    free.block = torch.enable_grad
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode():
            found = explain(model, images, layers="late", target=1)
        assert_close(found.evidence["late"], plain_gradcam(*full_autograd(free, "late", images, of_class(1))))
    for layers in ("early", "early.0", ["late", "early"]):
        with pytest.raises(NotExplainableError, match=r"reaches layer 'early.*' \(a detach, .* an inference_mode"):
            explain(model, images, layers=layers)
    seen = explain(model, images, layers=["early", "late"], method="eigencam")  # which asks for no gradient
    assert_close(seen.evidence["early"], explain(free, images, layers="early", method="eigencam").evidence["early"])
    ended = nn.Sequential(model, nn.Flatten())
    model.forward = torch.inference_mode()(model.forward)
    with pytest.raises(NotExplainableError, match=r"no gradient of the score reaches .* inference_mode"):
        explain(ended, images)


class Twice(nn.Module):
    """Runs one convolution twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 36, 3)

    def forward(self, images):
        return self.head(self.conv(self.conv(self.stem(images)).tanh()).flatten(1))


def test_module_that_runs_twice():
    model, images = perturbed(Twice()), torch.randn(2, 3, 8, 8)
    unrolled = nn.Sequential(
        model.stem, copy.deepcopy(model.conv), nn.Tanh(), copy.deepcopy(model.conv), nn.Flatten(), model.head
    )
    first, last = (plain_gradcam(*full_autograd(unrolled, layer, images, of_class(2))) for layer in ("1", "3"))
    found = explain(model, images, layers=[Layer("conv", call=0), "conv", Layer("conv", call=1)], target=2)
    assert list(found.evidence) == ["conv[0]", "conv", "conv[1]"]
    for key, expected in (("conv[0]", first), ("conv", last), ("conv[1]", last)):
        assert_close(found.evidence[key], expected)


Outputs = namedtuple("Outputs", ["aux", "features"])


class Packed(nn.Module):
    """Returns features, and logits, in a container."""

    def __init__(self, pack) -> None:
        super().__init__()
        self.body, self.head, self.pack = PackedBody(pack), nn.Linear(4 * 36, 3), pack

    def forward(self, images):
        features = self.body(images)
        features = features["maps"] if isinstance(features, dict) else features[-1]
        return self.pack(self.head(features.flatten(1)))


class PackedBody(nn.Module):
    def __init__(self, pack) -> None:
        super().__init__()
        self.conv, self.pack = nn.Conv2d(3, 4, 3), pack

    def forward(self, images):
        return self.pack(self.conv(images).tanh())


@pytest.mark.parametrize("pack", [
    lambda x: (None, x),
    lambda x: [x],
    lambda x: {"count": 3, "maps": x},
    lambda x: Outputs("nothing", x),
])  # fmt: skip
def test_outputs_in_containers(pack):
    model, images = perturbed(Packed(pack)), torch.randn(2, 3, 8, 8)
    plain = nn.Sequential(model.body.conv, nn.Tanh(), nn.Flatten(), model.head)
    expected = plain_gradcam(*full_autograd(plain, "1", images, of_class(1)))
    found = explain(model, images, target=1)
    assert list(found.evidence) == ["body"]
    assert_close(found.evidence["body"], expected)
    assert_close(found.logits, plain(images).detach(), 1e-6)


@pytest.mark.parametrize("with_hooks", ["layer2", "layer2.relu", "layer1"])
def test_user_hooks_see_unchanged_tensors(with_hooks):
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)
    seen = []
    model.get_submodule(with_hooks).register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    model(images)
    plain, seen = list(seen), []
    explain(model, images, layers=[with_hooks, "layer1"], target=1)
    assert torch.equal(seen[-1], plain[-1])


def kept_for_backward(model, run):
    """Bytes saved by autograd while ``run`` runs, parameters aside, every storage counted once."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(size for size, _ in kept.values())


def test_little_is_saved_for_backward():
    model, probe = torchvision.models.resnet18(num_classes=5).eval(), Probe(torch.randn(4, 3, 96, 96))
    target = TARGETS["predicted"]
    plan = prepare(model, probe, layers="layer4", target=target)
    partial = kept_for_backward(model, lambda: plan(model, probe, [target]))
    full = kept_for_backward(model, lambda: model(probe.images).sum().backward())
    assert full > 8 * 2**20  # the count counts
    assert 0 < partial < 2**20
    assert partial < full / 100


class Pooled(nn.Module):
    """Returns its last map and, beside it, what the score is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())

    def forward(self, images):
        features = self.body(images)
        return {"features": features, "pooled": features.mean((2, 3))}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = Pooled(), nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.backbone(images)["pooled"])


def test_feature_map_returned_together_with_its_pooled_values():
    model, images = perturbed(Classifier()), torch.randn(2, 3, 8, 8)
    found = explain(model, images, target=1)
    expected = plain_gradcam(*full_autograd(model, "backbone.body", images, of_class(1)))
    assert_close(found.evidence["backbone.body"], expected)
