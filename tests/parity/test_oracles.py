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
    align_sign,
    compute_peer_maps,
    create_case,
    create_score,
)
from tests.helpers.replicas import DEGREE, REPLICAS


def test_every_equation_has_an_oracle():
    assert set(ORACLES) | {"cam"} == set(EQUATIONS)


@pytest.mark.parametrize(("name", "size", "count"), CASES)
def test_equation_equals_pytorch_grad_cam_and_captum(name, size, count):
    model, images, classes = create_case(name, size, count)
    pair = MODELS[name][1]
    for layers in [pair] if count > 1 else [pair[:1], pair[1:]]:
        explanation = explain(model, images, layers=layers[::-1], method=EVERYWHERE, target=create_score(classes))
        for layer in layers:
            raw = LayerGradCam(model, model.get_submodule(layer)).attribute(images, classes, relu_attributions=False)
            assert_close(explanation.evidence[f"{layer}/gradcam"], raw[:, 0].detach(), ROUNDING)
        for method in ORACLES:
            for layer, raw, expected in zip(
                layers, *compute_peer_maps(method, model, layers, images, classes), strict=True
            ):
                evidence = explanation.evidence[f"{layer}/{method}"]
                if method in SIGNLESS:
                    evidence = align_sign(evidence, raw)
                assert_close(evidence, raw, ROUNDING)
                heatmaps = to_heatmaps(evidence, find_status(evidence), size[1:])
                # Both upsample in float32, where a coordinate on the grid is as large as its side.
                assert (heatmaps - expected).abs().max() <= 2 * max(evidence.shape[1:]) * ROUNDING


@pytest.mark.parametrize(("name", "size", "count"), CASES)
def test_equation_equals_the_replica_of_its_paper(name, size, count):
    model, images, classes = create_case(name, size, count)
    explanation = explain(model, images, layers=MODELS[name][1], method=EVERYWHERE, target=create_score(classes))
    for layer in MODELS[name][1]:
        activations, gradients = full_autograd(model, layer, images, of_class(classes))
        for method in EVERYWHERE:
            expected = REPLICAS[method](activations, gradients)
            assert not expected.isnan().any()
            assert_close(explanation.evidence[f"{layer}/{method}"], expected, ROUNDING)


@pytest.mark.parametrize("name", MODELS)
def test_float32_evidence_equals_an_ordinary_backward_pass(name):
    # The rounding of float32 belongs to the model; the package must not add to it.
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = create_case(name, size, 3)
    model, images = model.float(), images.float()
    explanation = explain(model, images, layers=layers, method=EVERYWHERE, target=create_score(classes))
    for layer in layers:
        tensors = full_autograd(model, layer, images, of_class(classes), torch.float32)
        for method in EVERYWHERE:
            assert torch.equal(explanation.evidence[f"{layer}/{method}"], METHODS[method](*tensors))


@pytest.mark.parametrize("name", MODELS)
def test_batches_layers_and_methods_are_independent(name):
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = create_case(name, size, 4)
    together = explain(model, images, layers=layers, method=EVERYWHERE, target=create_score(classes))
    for i in range(4):
        single = explain(
            model, images[i : i + 1], layers=layers, method=EVERYWHERE, target=create_score(classes[i : i + 1])
        )
        for key, evidence in together.evidence.items():
            assert_close(single.evidence[key], evidence[i : i + 1], ROUNDING)
    for method in EVERYWHERE:
        alone = explain(model, images, layers=layers[0], method=method, target=create_score(classes))
        assert_close(alone.evidence[layers[0]], together.evidence[f"{layers[0]}/{method}"], ROUNDING)
    alone = explain(model, images, layers=layers[1], method=EVERYWHERE, target=create_score(classes))
    for key, evidence in alone.evidence.items():
        assert_close(evidence, together.evidence[key], ROUNDING)


@pytest.mark.parametrize("factor", [1e-12, 0.3, 1e12])
@pytest.mark.parametrize("name", MODELS)
def test_score_factor_only_changes_gradcam_plus_plus(name, factor):
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = create_case(name, size, 2)
    plain, scaled = (
        explain(model, images, layers=layers, method=EVERYWHERE, target=lambda out, _, f=f: f * of_class(classes)(out))
        for f in (1, factor)
    )
    for key, evidence in plain.evidence.items():
        method = key.split("/")[1]
        if method in DEGREE:
            assert_close(scaled.evidence[key] / factor ** DEGREE[method], evidence, 2 * ROUNDING)
        else:  # Grad-CAM++ compares the gradient with the sum of the activations
            assert (scaled.evidence[key] / factor - evidence).abs().max() > 0.01 * evidence.abs().max()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", POOLED)
def test_cam_is_scaled_gradcam_with_classifier_weights(name, count):
    _, layers, [size, *_] = MODELS[name]
    model, images, classes = create_case(name, size, count)
    explanation = explain(model, images, layers=layers[-1], method=["cam", "gradcam"], target=classes)
    cam, gradcam = explanation.evidence.values()
    assert_close(cam, gradcam * gradcam[0].numel(), 2 * ROUNDING)
    activations, gradients = full_autograd(model, layers[-1], images, of_class(classes))
    assert_close(cam, REPLICAS["cam"](activations, gradients), ROUNDING)
    if hasattr(model, "fc"):  # one linear layer follows the pooling
        assert_close(cam, torch.einsum("nk,nkhw->nhw", model.fc.weight[classes].detach(), activations), ROUNDING)
