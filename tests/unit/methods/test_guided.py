"""Guided backpropagation and deconvolution against Captum, and models without ReLUs."""

from __future__ import annotations

import captum.attr
import pytest
import torch
from torch import nn

from lightning_gradcam import NotExplainableError, explain
from lightning_gradcam.methods import GuidedBackprop
from tests.helpers.models import assert_close, perturbed, plain_cnn
from tests.helpers.pixel_methods import compute_evidence


def test_guided_methods_raise_without_a_relu():
    model = perturbed(nn.Sequential(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(600, 4)))
    for name in ("guided_backprop", "deconvolution", "guided_gradcam"):
        with pytest.raises(NotExplainableError, match=f"No ReLU ran .* {name!r} would be the plain gradient.*saliency"):
            explain(model, torch.randn(2, 3, 12, 12), method=name)


@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor", "ignore:Setting forward, backward")
def test_guided_methods_equal_captum_for_relu_modules():
    model, images = perturbed(plain_cnn()), torch.randn(3, 3, 12, 12)
    for name, engine in {
        "guided_backprop": captum.attr.GuidedBackprop(model),
        "deconvolution": captum.attr.Deconvolution(model),
    }.items():
        expected = engine.attribute(images.clone().requires_grad_(), target=2).detach().abs().amax(1)
        assert_close(compute_evidence(model, images, name, target=2), expected, 1e-5)
    neuron = captum.attr.NeuronGuidedBackprop(model, model[4])
    expected = neuron.attribute(images.clone().requires_grad_(), (3, 2, 1)).detach().abs().amax(1)
    explanation = explain(model, images, layers="4", method=GuidedBackprop((3, 2, 1)), target=2)
    assert_close(explanation.evidence["4"], expected, 1e-5)
