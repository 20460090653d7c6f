"""Single neurons as targets, against replicas."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import explain
from lightning_gradcam.methods import Deconvolution, GuidedBackprop, Saliency
from tests.helpers.models import TinyResNet, assert_close, perturbed, plain_cnn
from tests.helpers.pixel_replicas import deconvolution, guided


@pytest.mark.parametrize(("kind", "replica"), [(GuidedBackprop, guided), (Deconvolution, deconvolution)])
@pytest.mark.parametrize("depth", [1, 2])
def test_single_neuron_equals_replica(kind, replica, depth):
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)

    def compute_output(module, images):
        first = module.layer1(images)
        return first if depth == 1 else module.layer2(first)

    active = compute_output(model, images)[0]
    at = [int(i) for i in torch.unravel_index(active.argmax(), active.shape)]
    explanation = explain(model, images, layers=f"layer{depth}", method=kind(neuron=at))
    model.double()
    pairs = [replica(model, image, 0, lambda m, x: compute_output(m, x)[0][tuple(at)]) for image in images.double()]
    assert_close(explanation.evidence[f"layer{depth}"], torch.stack(pairs), 1e-5)
    both = explain(model.float(), images, layers=["layer1", "layer2"], method=kind((0, 1, 1)))
    assert list(both.evidence) == ["layer1", "layer2"]


def test_unknown_neuron_raises():
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    assert explain(model, images, layers="5", method=Saliency((7, 5, 5))).evidence["5"].any()
    for neuron in ((8, 5, 5), (7, 6, 0), (7, 5)):
        with pytest.raises(
            ValueError, match=r"a channel and a position in layer '5', whose output has shape \(8, 6, 6\)"
        ):
            explain(model, images, layers="5", method=Saliency(neuron))
    for wrong in (5, "layer", (1.0, 2, 2), True):
        with pytest.raises(TypeError, match=r"Expected `neuron` to be a channel and a position, \(channel, i, j\)"):
            GuidedBackprop(wrong)
    with pytest.raises(ValueError, match="of at least 0"):
        Deconvolution((5, -1, 2))
