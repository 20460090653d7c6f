"""`explain` against captum, pytorch-grad-cam and full autograd, and the ways in which it is called."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from lightning_gradcam import Layer, Probe, explain
from lightning_gradcam.errors import ForwardError, NotExplainableError
from lightning_gradcam.methods import gradcam
from tests.helpers.models import (
    TinyResNet,
    TinyVGG,
    assert_close,
    full_autograd,
    of_class,
    perturbed,
    plain_cnn,
    plain_gradcam,
)


def vgg11():
    """torchvision's, with a small classifier in the place of its 120 million weights."""
    with torch.device("meta"):
        model = torchvision.models.vgg11(init_weights=False)
    model.classifier = nn.Linear(512 * 49, 5)
    model.features.to_empty(device="cpu")
    for module in model.features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return model


PEERS = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), ["layer3", "layer4"], 96),
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
        ["features.8", "features"],
        96,
    ),
    "plain": (plain_cnn, ["1", "5"], 64),
}


def assert_same_as_autograd(model, layer, images, classes, *, of_max=1e-5, score=None, **kwargs):
    """Explain, and compare the signed evidence with a float64 replica."""
    found = explain(model, images, layers=layer, target=classes, **kwargs)
    name = layer.name if isinstance(layer, Layer) else layer
    expected = plain_gradcam(*full_autograd(model, name, images, score or of_class(classes)))
    assert_close(found.evidence[layer.key if isinstance(layer, Layer) else layer], expected, of_max)
    return found


@pytest.mark.parametrize("name", PEERS)
def test_evidence_equals_captum_and_pytorch_grad_cam(name):
    make, layers, size = PEERS[name]
    images, classes = torch.randn(4, 3, size, size), torch.tensor([0, 3, 2, 1])
    model = perturbed(make(), images=images)
    for layer in layers:
        found = explain(model, images, layers=layer, target=classes)
        module = model.get_submodule(layer)
        raw = LayerGradCam(model, module).attribute(images, target=classes, relu_attributions=False)
        assert_close(found.evidence[layer], raw[:, 0].detach(), 1e-5)
        assert torch.equal(found.maps[layer], found.evidence[layer].relu())
        with GradCAM(model, [module]) as peer:
            end = torch.from_numpy(peer(images, [ClassifierOutputTarget(int(c)) for c in classes]))
        assert found.degenerate[layer].count(None) >= 2  # the rest may be zero everywhere, in both
        # Both enlarge bilinearly in float32, in another order of operations; its eps is 1e-7 of a range of 1.
        assert (found.heatmaps()[layer] - end).abs().max() < 1e-5


@pytest.mark.parametrize("layer", ["features.18", "features.19", "features.20"])
def test_in_place_relu_after_or_in_the_layer_changes_nothing(layer):
    # Peers disagree here with one another (values before or after the ReLU), so the oracle is a copy without in-place.
    model = perturbed(vgg11())
    assert_same_as_autograd(model, layer, torch.randn(2, 3, 64, 64), torch.tensor([4, 2]))


@pytest.mark.parametrize(("make", "layer", "shape"), [
    (TinyVGG, "features.3", (3, 16, 16)),
    (TinyVGG, "features.4", (3, 16, 16)),
    (TinyResNet, "layer1", (3, 16, 16)),
    (TinyResNet, "layer2.bn2", (3, 16, 16)),
    (lambda: nn.Sequential(nn.Conv1d(2, 6, 5), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 20, 3)), "1", (2, 24)),
    (lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 90, 3)), "1", (1, 5, 7, 8)),
])  # fmt: skip
def test_evidence_equals_autograd_in_one_to_three_dimensions(make, layer, shape):
    assert_same_as_autograd(perturbed(make()), layer, torch.randn(3, *shape), torch.tensor([0, 2, 1]))


def test_batches_and_several_layers_equal_single_ones():
    model, images = perturbed(TinyResNet()), torch.randn(4, 3, 16, 16)
    layers = ["layer2", "layer1", "layer2.bn2", "layer1.shortcut"]  # in no order, nested and parallel
    together = explain(model, images, layers=layers, target=[0, 1, 2, 3])
    assert list(together.evidence) == layers
    for layer in layers:
        assert_same_as_autograd(model, layer, images, [0, 1, 2, 3])
        alone = explain(model, images, layers=layer, target=[0, 1, 2, 3])
        assert_close(together.evidence[layer], alone.evidence[layer], 1e-6)
        for i in range(4):
            single = explain(model, images[i : i + 1], layers=layer, target=i)
            assert_close(single.evidence[layer], alone.evidence[layer][i : i + 1], 1e-5)


def test_target_accepts_names_numbers_tensors_and_callables():
    model, images = perturbed(plain_cnn()), torch.randn(3, 3, 12, 12)
    labels = torch.tensor([4, 0, 2])
    predicted = model(images).argmax(1)
    assert not torch.equal(predicted, labels)
    probe = Probe(images, labels=labels)
    ways = [(probe, "predicted", predicted), (probe, "label", labels)]
    ways += [(images, target, torch.tensor([4, 0, 2])) for target in ([4, 0, 2], (4, 0, 2), labels, labels.int())]
    ways += [(images, 1, torch.tensor([1, 1, 1])), (images, torch.tensor(1), torch.tensor([1, 1, 1]))]
    for given, target, classes in ways:
        found = explain(model, given, layers="5", target=target)
        assert torch.equal(found.classes, classes)
        assert_close(found.evidence["5"], plain_gradcam(*full_autograd(model, "5", images, of_class(classes))))
        assert_close(found.logits, model(images).detach(), 1e-6)
    margin = explain(model, images, layers="5", target=lambda out, probe: out[:, 0] - out[:, 1])
    assert margin.classes is None
    expected = plain_gradcam(*full_autograd(model, "5", images, lambda out: out[:, 0] - out[:, 1]))
    assert_close(margin.evidence["5"], expected)
    several = explain(model, images, layers="5", target=lambda out, probe: out[:, :2])
    assert_close(several.evidence["5"], plain_gradcam(*full_autograd(model, "5", images, lambda out: out[:, :2])))


def test_one_logit_is_a_binary_classifier():
    model, images = perturbed(plain_cnn(classes=1)), torch.randn(3, 3, 12, 12)
    for of, sign in ((1, 0.5), (0, -0.5)):
        expected = plain_gradcam(*full_autograd(model, "5", images, lambda out, sign=sign: sign * out))
        for classifier in (model, nn.Sequential(*model, nn.Sigmoid())):  # of the logit, also behind a sigmoid
            found = explain(classifier, images, layers="5", target=of)
            assert_close(found.evidence["5"], expected, 1e-4)
            assert_close(found.logits.softmax(1)[:, 1:], model(images).sigmoid().detach(), 1e-5)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True])
def test_evidence_is_the_same_in_any_grad_mode_and_if_frozen(context, frozen):
    model = perturbed(TinyResNet()).requires_grad_(not frozen)
    outside = torch.randn(2, 3, 16, 16)
    expected = plain_gradcam(*full_autograd(model, "layer2", outside, of_class([1, 3])))
    with context():
        inside, labels = outside.clone(), torch.tensor([1, 3])
        for images in (outside, inside):
            for target in ([1, 3], labels, "label", lambda out, probe: out.gather(1, probe.labels[:, None])):
                found = explain(model, Probe(images, labels=labels), layers="layer2", target=target)
                assert_close(found.evidence["layer2"], expected)
        assert torch.is_grad_enabled() is (context is torch.enable_grad)
        assert torch.is_inference_mode_enabled() is (context is torch.inference_mode)
    assert all(p.requires_grad is not frozen for p in model.parameters())


@pytest.mark.parametrize(("dtype", "of_max"), [(torch.bfloat16, 0.05), (torch.float64, 1e-6)])
def test_maps_are_float32_in_any_precision(dtype, of_max):
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)
    full = explain(model, images, layers="layer2", target=2)
    other = explain(copy.deepcopy(model).to(dtype), images.to(dtype), layers="layer2", target=2)
    assert other.evidence["layer2"].dtype == other.logits.dtype == other.heatmaps()["layer2"].dtype == torch.float32
    assert_close(other.evidence["layer2"], full.evidence["layer2"], of_max)
    with torch.autocast("cpu", torch.bfloat16):
        cast = explain(model, images, layers="layer2", target=2)
    assert cast.evidence["layer2"].dtype == torch.float32
    assert_close(cast.evidence["layer2"], full.evidence["layer2"], 0.05)


def test_equations_are_float32_under_autocast():
    seen = []

    def method(activations, gradients):
        seen[:] = activations, gradients
        return gradcam(activations, gradients)

    with torch.autocast("cpu", torch.bfloat16):
        found = explain(perturbed(TinyResNet()), torch.randn(2, 3, 16, 16), layers="layer2.conv2", method=method)
    assert_close(found.evidence["layer2.conv2"], plain_gradcam(*(tensor.double() for tensor in seen)), 1e-6)


def test_invalid_arguments_raise_with_a_reason():
    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    for error, message, arguments in [
        (ValueError, r"Expected classes from 0 to 4, as the model has 5, but got 5", {"target": 5}),
        (ValueError, r"one for each of 2, but got 3", {"target": [0, 1, 2]}),
        (ValueError, r"'predict'.*Did you mean 'predicted'", {"target": "predict"}),
        (ValueError, r"'grad-cam'.*Did you mean 'gradcam'", {"method": "grad-cam"}),
        (ValueError, r"labels of shape \(N,\)", {"target": "label"}),
        (TypeError, r"as integers, but got 1.5", {"target": 1.5}),
        (NotExplainableError, r"no gradient of the score", {"target": lambda out, probe: out.detach()[:, 0]}),
        (ForwardError, r"failed on images of shape \(2, 3, 12, 12\)", {"forward": lambda m, p: m(p.images[:, :1])}),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            explain(model, images, **arguments)
    with pytest.raises(ValueError, match=r"torch\.from_numpy"):
        explain(model, images.numpy())
    with pytest.raises(NotExplainableError, match=r"needs \(images, text\).*forward="):
        explain(type("Two", (nn.Module,), {"forward": lambda self, images, text: images})(), images)
