"""Every equation against captum and pytorch-grad-cam, raw and end to end."""

from __future__ import annotations

import pytest
import pytorch_grad_cam as peers
import torch
import torchvision
from captum.attr import LayerGradCam
from models import TinyResNet, assert_close, full_autograd, perturbed, plain_cnn
from replicas import REPLICAS
from torch import nn

from lightning_gradcam import explain
from lightning_gradcam.explanation import flaws, to_heatmaps
from lightning_gradcam.methods import EQUATIONS

ORACLES = {
    "gradcam": peers.GradCAM,
    "gradcam++": peers.GradCAMPlusPlus,
    "xgradcam": peers.XGradCAM,
    "hirescam": peers.HiResCAM,
    "layercam": peers.LayerCAM,
    "gradcam_elementwise": peers.GradCAMElementWise,
    "eigencam": peers.EigenCAM,
    "eigengradcam": peers.EigenGradCAM,
}
"""A method is compared by being entered here. CAM has no peer: `test_methods` compares it with classifier weights."""

SIGNLESS = {"eigencam", "eigengradcam"}
"""The peer leaves the sign to chance."""

FACTOR = 1e4
"""On the score, so that the peer's fixed epsilons (1e-6 and 1e-7) hardly count."""

OF_MAX = dict.fromkeys(ORACLES, 1e-5) | {"gradcam++": 5e-4, "eigencam": 1e-4, "eigengradcam": 1e-4}
"""Measured: up to 2e-6; 2e-4 for Grad-CAM++, where the peer's epsilon counts; 4e-5 for components in float32."""


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12 * 144, 32), nn.Sigmoid(), nn.Linear(32, 10), nn.Softmax(1),
    )  # fmt: skip


# All layers but features.8 are behind a ReLU: Grad-CAM++ has poles elsewhere, and epsilons decide there.
MODELS = {
    "small": (small_cnn, ["1", "2"], [(1, 28, 28)]),
    "plain": (plain_cnn, ["2", "5"], [(3, 64, 64), (3, 21, 34)]),
    "tiny residual": (TinyResNet, ["layer1", "layer2"], [(3, 16, 16), (3, 30, 22)]),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), ["layer3", "layer4"], [(3, 96, 96), (3, 64, 128)]),
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5), ["features.8", "features"], [(3, 96, 96)],
    ),
}  # fmt: skip

POOLED = ("tiny residual", "resnet18", "mobilenet_v3_small")
"""Those whose head takes the mean of the whole last map."""


def cases():
    return [(name, size) for name, (_, _, sizes) in MODELS.items() for size in sizes]


class Raw:
    """What a peer computes before its ReLU, kept while it works."""

    def __init__(self, peer):
        self.found, self.inner = [], peer.get_cam_image
        peer.get_cam_image = self

    def __call__(self, *args, **kwargs):
        self.found.append(torch.from_numpy(self.inner(*args, **kwargs)))
        return self.found[-1].numpy()


def peers_answer(name, model, layers, images, classes):
    """Raw maps per layer, and what the user gets: the mean over layers, enlarged and in [0, 1]."""
    scores = [lambda output, c=c: FACTOR * output[c] for c in classes.tolist()]
    with ORACLES[name](model, [model.get_submodule(layer) for layer in layers]) as peer:
        raw = Raw(peer)
        return raw.found, torch.from_numpy(peer(images, scores))


def score(classes):
    return lambda output, probe: FACTOR * output.gather(1, classes[: len(output), None])


def turned(found, like):
    """``found``, each image with the sign that it has in ``like``."""
    return torch.where((found * like).flatten(1).sum(1)[:, None, None] < 0, -found, found)


def test_every_method_has_an_oracle():
    assert set(ORACLES) | {"cam"} == set(EQUATIONS)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("name", "size"), cases())
def test_equals_pytorch_grad_cam_and_captum_raw_and_end_to_end(name, size, count):
    make, layers, _ = MODELS[name]
    images, classes = torch.randn(5, *size), torch.tensor([0, 3, 2, 1, 4])
    model = perturbed(make(), images=images)
    images, classes = images[:count], classes[:count]
    found = explain(model, images, layers=layers, method=list(ORACLES), target=score(classes))
    for layer in layers:
        raw = LayerGradCam(model, model.get_submodule(layer)).attribute(images, classes, relu_attributions=False)
        assert_close(found.evidence[f"{layer}/gradcam"], FACTOR * raw[:, 0].detach(), 1e-5)
        for method in ORACLES:
            evidence = found.evidence[f"{layer}/{method}"]
            [raw], end = peers_answer(method, model, [layer], images, classes)
            if method in SIGNLESS:
                evidence = turned(evidence, raw)
            assert_close(evidence, raw, OF_MAX[method])
            shown = to_heatmaps(evidence, flaws(evidence), size[1:])
            assert (shown - end).abs().max() < 10 * OF_MAX[method]  # images of faint evidence are stretched


def test_several_layers_are_those_of_the_peer_in_one_pass():
    images, classes = torch.randn(3, 3, 30, 22), torch.tensor([4, 0, 2])
    model = perturbed(TinyResNet())
    found = explain(model, images, layers=["layer2", "layer1"], method=list(ORACLES), target=score(classes))
    for method in set(ORACLES) - SIGNLESS:
        raw, _ = peers_answer(method, model, ["layer1", "layer2"], images, classes)  # in order of execution
        for layer, expected in zip(("layer1", "layer2"), raw, strict=True):
            assert_close(found.evidence[f"{layer}/{method}"], expected, OF_MAX[method])


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_replica_of_its_paper_behind_a_float64_model_with_ordinary_backward(name):
    make, layers, [size, *_] = MODELS[name]
    images, classes = torch.randn(3, *size), torch.tensor([0, 3, 2])
    model = perturbed(make(), images=images)
    methods = [method for method in EQUATIONS if method != "cam"]
    found = explain(model, images, layers=layers, method=methods, target=classes)
    for layer in layers:
        activations, gradients = full_autograd(model, layer, images, lambda out: out.gather(1, classes[:, None]))
        for method in methods:
            expected = REPLICAS[method](activations, gradients)
            assert not expected.isnan().any()
            near_a_pole = (layer, method) == ("features.8", "gradcam++")  # 2 + sum(A) g is down to 5e-4 there
            assert_close(found.evidence[f"{layer}/{method}"], expected, 0.03 if near_a_pole else 1e-4)


@pytest.mark.parametrize(("name", "model"), [(n, m) for n in EQUATIONS for m in MODELS if n != "cam" or m in POOLED])
def test_a_batch_equals_its_images_and_several_layers_each_alone(name, model):
    make, layers, [size, *_] = MODELS[model]
    layers = layers[-1:] if name == "cam" else layers  # of these, only the last is pooled
    images = torch.randn(4, *size)
    net, classes = perturbed(make(), images=images), [0, 1, 2, 3]
    together = explain(net, images, layers=layers, method=name, target=classes)
    for layer in layers:
        alone = explain(net, images, layers=layer, method=name, target=classes)
        assert_close(together.evidence[layer], alone.evidence[layer], 1e-5)
        for i in classes:
            single = explain(net, images[i : i + 1], layers=layer, method=name, target=i)
            assert_close(single.evidence[layer], alone.evidence[layer][i : i + 1], 1e-4)
