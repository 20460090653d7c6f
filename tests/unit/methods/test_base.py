"""Registered pass methods against replicas, and the attributes of methods."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from lightning_gradcam import Baseline, Probe, explain
from lightning_gradcam.capture.layer import ATTENTION, PIXELS
from lightning_gradcam.methods import (
    EQUATIONS,
    METHODS,
    BasePassMethod,
    GuidedBackprop,
    Saliency,
    get_location,
    get_neuron,
    is_pass_method,
)
from tests.helpers.model_state import everything
from tests.helpers.models import TinyViT, assert_close, perturbed, plain_cnn
from tests.helpers.pass_replicas import PASS_REPLICAS
from tests.helpers.pixel_methods import NAMES

PASS_METHODS = [name for name in METHODS if name not in EQUATIONS and METHODS[name].requires is None]
"""Names of the pass methods without requirements; `test_pixels` tests those that run on Captum."""

TOLERANCES = {name: (1e-5 if get_location(METHODS[name]) else 1e-4) for name in PASS_METHODS}
"""Tolerance between a batch and its single images: the batch size changes the last digits of scores."""


def create_case(name):
    """Return a model that the method supports, images, the layer to explain, and the key of the evidence."""
    location = get_location(METHODS[name])
    images = torch.randn(3, 3, 16, 16)
    model = perturbed(TinyViT() if location == ATTENTION else plain_cnn(), images=images)
    return model, images, None if location else "5", location or "5"


def test_every_pass_method_has_a_replica():
    assert set(PASS_REPLICAS) == set(PASS_METHODS)


@pytest.mark.parametrize("name", PASS_METHODS)
def test_pass_method_equals_replica_and_single_images(name):
    model, images, layer, key = create_case(name)
    arguments = {"method": name, **({"layers": layer} if layer else {})}
    evidence = explain(model, images, target=[2, 0, 1], **arguments).evidence[key]
    expected = PASS_REPLICAS[name](model, layer, images, [2, 0, 1])
    assert_close(evidence, expected, 1e-6 if name == "rollout" else 1e-4)
    for i, label in enumerate([2, 0, 1]):
        single = explain(model, images[i : i + 1], target=label, **arguments).evidence[key]
        assert_close(single, evidence[i : i + 1], TOLERANCES[name])


@pytest.mark.parametrize("name", PASS_METHODS)
def test_pass_method_leaves_no_trace_on_the_model(name):
    model, images, layer, _ = create_case(name)
    model.train()
    before = everything(model)
    explain(model, images, method=name, **({"layers": layer} if layer else {}))
    assert everything(model) == before


@pytest.mark.parametrize("name", PASS_METHODS)
def test_baseline_finds_pass_methods_by_name(name):
    model, images, layer, _ = create_case(name)
    baseline = Baseline.record(
        model, Probe(images.repeat(24, 1, 1, 1)), method=name, **({"layers": layer} if layer else {})
    )
    assert baseline.compare(model, profile="same-weights").passed


@pytest.mark.parametrize("name", PASS_METHODS)
def test_pass_method_combines_with_gradcam(name):
    model, images, _, key = create_case(name)
    layer = "blocks.1" if key == ATTENTION else key
    explanation = explain(model, images, layers=layer, method=["gradcam", name], target=1)
    assert list(explanation.evidence) == [f"{layer}/gradcam", f"{key}/{name}"]
    alone = explain(model, images, layers=layer, target=1).evidence[layer]
    torch.testing.assert_close(explanation.evidence[f"{layer}/gradcam"], alone)


def test_missing_captum_raises_at_once(monkeypatch):
    from lightning_gradcam import GradCAMCallback
    from lightning_gradcam.callback.compat import MisconfigurationException

    find = importlib.util.find_spec
    monkeypatch.setattr("lightning_gradcam.methods.base.find_spec", lambda n: None if n == "captum" else find(n))
    for name in NAMES:
        with pytest.raises(ValueError, match=r"captum .* requires. Run: pip install 'lightning_gradcam\[captum\]'"):
            explain(plain_cnn(), torch.randn(2, 3, 12, 12), method=name)
    with pytest.raises(MisconfigurationException, match=r"lightning_gradcam\[captum\]"):
        GradCAMCallback(method=["gradcam", "saliency"])
    assert explain(plain_cnn(), torch.randn(2, 3, 12, 12)).evidence


@pytest.mark.parametrize("name", [name for name in METHODS if name not in EQUATIONS])
def test_pass_methods_share_their_base_class(name):
    method = METHODS[name]
    assert isinstance(method, BasePassMethod)
    assert is_pass_method(method)
    assert method.name == name
    assert method.requires in (None, "captum")
    assert method.location in (None, PIXELS, ATTENTION)
    assert method.neuron is get_neuron(method) is None
    assert get_location(method) == method.location


def test_neurons_have_the_location_of_their_layer():
    method = Saliency(neuron=[5, 2, 2])
    assert (get_location(method), get_neuron(method)) == (None, (5, 2, 2))
    assert method != GuidedBackprop(neuron=[5, 2, 2])


def test_plain_functions_are_methods_without_attributes():
    assert not is_pass_method(lambda activations, gradients: gradients)
    assert is_pass_method(lambda passes: {})
    assert get_location(lambda passes: {}) is None
    assert get_neuron(lambda passes: {}) is None
