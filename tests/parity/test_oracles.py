"""Every equation against captum and pytorch-grad-cam, raw and end to end, and against its replica.

Models are float64 here, so that no tolerance has to cover a deep network's rounding in float32, which differs between
processors and numbers of threads and grows without limit near the poles of Grad-CAM++.
"""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam

from lightning_gradcam import explain
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.methods import EQUATIONS, METHODS
from tests.helpers.models import assert_close, full_autograd, of_class
from tests.helpers.oracles import (
    CASES,
    EVERYWHERE,
    MODELS,
    ORACLES,
    POOLED,
    ROUNDING,
    SIGNLESS,
    case,
    peers_answer,
    score,
    turned,
)
from tests.helpers.replicas import DEGREE, REPLICAS


def test_every_equation_has_an_oracle():
    assert set(ORACLES) | {"cam"} == set(EQUATIONS)


@pytest.mark.parametrize(("name", "size", "count"), CASES)
def test_equation_equals_pytorch_grad_cam_and_captum(name, size, count):
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
def test_equation_equals_the_replica_of_its_paper(name, size, count):
    model, images, classes = case(name, size, count)
    found = explain(model, images, layers=MODELS[name][1], method=EVERYWHERE, target=score(classes))
    for layer in MODELS[name][1]:
        activations, gradients = full_autograd(model, layer, images, of_class(classes))
        for method in EVERYWHERE:
            expected = REPLICAS[method](activations, gradients)
            assert not expected.isnan().any()
            assert_close(found.evidence[f"{layer}/{method}"], expected, ROUNDING)


@pytest.mark.parametrize("name", MODELS)
def test_float32_evidence_equals_an_ordinary_backward_pass(name):
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
def test_batches_layers_and_methods_are_independent(name):
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
def test_score_factor_only_changes_gradcam_plus_plus(name, factor):
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
def test_cam_is_scaled_gradcam_with_classifier_weights(name, count):
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = case(name, size, count)
    found = explain(model, images, layers=layers[-1], method=["cam", "gradcam"], target=classes)
    cam, gradcam = found.evidence.values()
    assert_close(cam, gradcam * gradcam[0].numel(), 2 * ROUNDING)
    activations, gradients = full_autograd(model, layers[-1], images, of_class(classes))
    assert_close(cam, REPLICAS["cam"](activations, gradients), ROUNDING)
    if hasattr(model, "fc"):  # behind the pooling, one linear layer
        assert_close(cam, torch.einsum("nk,nkhw->nhw", model.fc.weight[classes].detach(), activations), ROUNDING)
