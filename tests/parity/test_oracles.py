"""Every equation against captum and pytorch-grad-cam, raw and end to end, and against its replica.

Models are float64 here, so nothing is forgiven for a deep network's rounding in float32, which differs between
processors and numbers of threads and is enlarged without limit near Grad-CAM++'s poles.
"""

from __future__ import annotations

import pytest
import pytorch_grad_cam as peers
import torch
import torchvision
from captum.attr import LayerGradCam
from torch import nn

from lightning_gradcam import explain
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.methods import EQUATIONS, METHODS
from tests.helpers.models import TinyResNet, assert_close, full_autograd, of_class, perturbed, plain_cnn
from tests.helpers.replicas import REPLICAS
from tests.unit.methods.test_cam import DEGREE

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
"""A method is compared by being entered here. CAM has no peer: below, it is compared with classifier weights."""

EVERYWHERE = list(ORACLES)
"""The methods that take any head."""

SIGNLESS = {"eigencam", "eigengradcam"}
"""The peer leaves the sign to chance."""

ROUNDING = 2.0**-23
"""Of the maximum: evidence is handed out in float32, and so are the peer's components."""

LARGE = 2.0**30
WITHOUT_EPSILON = {"gradcam++": (1 / LARGE, LARGE), "xgradcam": (LARGE, 1 / LARGE)}
"""Factors on activations and gradients that leave a map as it is, but beside which the peer's epsilon is nothing.

It adds 1e-6 to a sum of squared gradients, and 1e-7 to a sum of activations. Powers of two round nothing.
"""


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12 * 144, 32), nn.Sigmoid(), nn.Linear(32, 10), nn.Softmax(1),
    )  # fmt: skip


# features.8 is signed: there, Grad-CAM++ comes as near to a pole as 5e-4, and XGrad-CAM's sums cancel.
MODELS = {
    "small": (small_cnn, ["1", "2"], [(1, 28, 28)]),
    "plain": (plain_cnn, ["2", "5"], [(3, 32, 32), (3, 21, 34)]),
    "tiny residual": (TinyResNet, ["layer1", "layer2"], [(3, 16, 16), (3, 30, 22)]),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), ["layer3", "layer4"], [(3, 64, 64), (3, 48, 96)]),
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5), ["features.8", "features"], [(3, 96, 96)],
    ),
}  # fmt: skip

POOLED = ("tiny residual", "resnet18", "mobilenet_v3_small")
"""Those whose head takes the mean of the whole last map."""

CASES = [(name, size, count) for name, (_, _, sizes) in MODELS.items() for size in sizes for count in (1, 4)]


def case(name, size, count):
    """A perturbed float64 model, so many images, and a class for each."""
    images = torch.randn(4, *size)
    model = perturbed(MODELS[name][0](), images=images).double()
    return model, images[:count].double(), torch.tensor([3, 0, 2, 1])[:count]


def score(classes):
    """What the peers explain: the output at each image's class, of the small CNN a probability."""
    return lambda output, _: of_class(classes[: len(output)])(output)


class Raw:
    """What a peer computes before its ReLU, kept while it works, with its epsilons out of the way."""

    def __init__(self, name, peer):
        self.found, self.inner, self.factors = [], peer.get_cam_image, WITHOUT_EPSILON.get(name)
        peer.get_cam_image = self

    def __call__(self, images, layer, targets, activations, gradients, eigen_smooth):
        if self.factors:
            activations, gradients = activations * self.factors[0], gradients * self.factors[1]
        self.found.append(self.inner(images, layer, targets, activations, gradients, eigen_smooth))
        return self.found[-1] * LARGE  # beside which the 1e-7 of its min-max is nothing


def peers_answer(name, model, layers, images, classes, eigen_smooth=False):
    """From one pass, for each layer the raw map, and what the user of it alone gets: enlarged, in [0, 1]."""
    scores = [lambda output, c=c: output[c] for c in classes.tolist()]
    with ORACLES[name](model, [model.get_submodule(layer) for layer in layers]) as peer:
        raw = Raw(name, peer)
        ends, join = [], peer.aggregate_multi_layers  # which would take the mean over the layers
        peer.aggregate_multi_layers = lambda maps: ends.extend(join([each]) for each in maps)
        peer(images, scores, eigen_smooth=eigen_smooth)
        return list(map(torch.from_numpy, raw.found)), list(map(torch.from_numpy, ends))


def turned(found, like):
    """``found``, each image with the sign that it has in ``like``."""
    return torch.where((found * like).flatten(1).sum(1)[:, None, None] < 0, -found, found)


def test_every_method_has_an_oracle():
    assert set(ORACLES) | {"cam"} == set(EQUATIONS)


@pytest.mark.parametrize(("name", "size", "count"), CASES)
def test_equals_pytorch_grad_cam_and_captum_raw_and_end_to_end(name, size, count):
    model, images, classes = case(name, size, count)
    both = MODELS[name][1]
    for layers in [both] if count > 1 else [both[:1], both[1:]]:
        found = explain(model, images, layers=layers[::-1], method=EVERYWHERE, target=score(classes))
        for layer in layers:
            raw = LayerGradCam(model, model.get_submodule(layer)).attribute(images, classes, relu_attributions=False)
            assert_close(found.evidence[f"{layer}/gradcam"], raw[:, 0].detach(), ROUNDING)
        for method in ORACLES:
            for layer, raw, end in zip(layers, *peers_answer(method, model, layers, images, classes), strict=True):
                evidence = found.evidence[f"{layer}/{method}"]
                if method in SIGNLESS:
                    evidence = turned(evidence, raw)
                assert_close(evidence, raw, ROUNDING)
                shown = to_heatmaps(evidence, find_status(evidence), size[1:])
                # Both enlarge in float32, where a coordinate on the grid is a number as large as its side.
                assert (shown - end).abs().max() <= 2 * max(evidence.shape[1:]) * ROUNDING


@pytest.mark.parametrize(("name", "size", "count"), CASES)
def test_equals_the_replica_of_its_paper_behind_an_ordinary_backward_pass(name, size, count):
    model, images, classes = case(name, size, count)
    found = explain(model, images, layers=MODELS[name][1], method=EVERYWHERE, target=score(classes))
    for layer in MODELS[name][1]:
        activations, gradients = full_autograd(model, layer, images, of_class(classes))
        for method in EVERYWHERE:
            expected = REPLICAS[method](activations, gradients)
            assert not expected.isnan().any()
            assert_close(found.evidence[f"{layer}/{method}"], expected, ROUNDING)


@pytest.mark.parametrize("name", MODELS)
def test_in_float32_it_is_the_equation_of_what_an_ordinary_float32_backward_pass_finds(name):
    # How far float32 is from float64 is the model's affair; that nothing is added to it is ours.
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = case(name, size, 3)
    model, images = model.float(), images.float()
    found = explain(model, images, layers=layers, method=EVERYWHERE, target=score(classes))
    for layer in layers:
        taken = full_autograd(model, layer, images, of_class(classes), torch.float32)
        for method in EVERYWHERE:
            assert torch.equal(found.evidence[f"{layer}/{method}"], METHODS[method](*taken))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_equals_its_images_and_several_layers_and_methods_each_alone(name):
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = case(name, size, 4)
    together = explain(model, images, layers=layers, method=EVERYWHERE, target=score(classes))
    for i in range(4):
        single = explain(model, images[i : i + 1], layers=layers, method=EVERYWHERE, target=score(classes[i : i + 1]))
        for key, evidence in together.evidence.items():
            assert_close(single.evidence[key], evidence[i : i + 1], ROUNDING)
    for method in EVERYWHERE:
        alone = explain(model, images, layers=layers[0], method=method, target=score(classes))
        assert_close(alone.evidence[layers[0]], together.evidence[f"{layers[0]}/{method}"], ROUNDING)
    alone = explain(model, images, layers=layers[1], method=EVERYWHERE, target=score(classes))
    for key, evidence in alone.evidence.items():
        assert_close(evidence, together.evidence[key], ROUNDING)


@pytest.mark.parametrize("factor", [1e-12, 0.3, 1e12])
@pytest.mark.parametrize("name", MODELS)
def test_a_factor_on_the_score_changes_no_map_but_grad_cam_plus_plus(name, factor):
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = case(name, size, 2)
    plain, scaled = (
        explain(model, images, layers=layers, method=EVERYWHERE, target=lambda out, _, f=f: f * of_class(classes)(out))
        for f in (1, factor)
    )
    for key, evidence in plain.evidence.items():
        method = key.split("/")[1]
        if method in DEGREE:
            assert_close(scaled.evidence[key] / factor ** DEGREE[method], evidence, 2 * ROUNDING)
        else:  # which weighs the gradient against what the layer's activations sum up to
            assert (scaled.evidence[key] / factor - evidence).abs().max() > 0.01 * evidence.abs().max()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", POOLED)
def test_cam_is_gradcam_times_the_places_and_made_of_the_classifiers_weights(name, count):
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = case(name, size, count)
    found = explain(model, images, layers=layers[-1], method=["cam", "gradcam"], target=classes)
    cam, gradcam = found.evidence.values()
    assert_close(cam, gradcam * gradcam[0].numel(), 2 * ROUNDING)
    activations, gradients = full_autograd(model, layers[-1], images, of_class(classes))
    assert_close(cam, REPLICAS["cam"](activations, gradients), ROUNDING)
    if hasattr(model, "fc"):  # behind the pooling, one linear layer
        assert_close(cam, torch.einsum("nk,nkhw->nhw", model.fc.weight[classes].detach(), activations), ROUNDING)
