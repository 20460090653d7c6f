"""Methods by name, by callable and in lists."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import explain
from lightning_gradcam.methods import METHODS
from lightning_gradcam.methods.resolve import coerce_method, get_method_name
from tests.helpers.models import plain_cnn


def test_several_methods_and_custom_functions():
    def product(activations, gradients):
        return (activations * gradients).sum(1)

    def norm(passes):
        return {key: a.norm(dim=1) for key, a in passes.activations.items()}

    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    explanation = explain(model, images, layers=["1", "5"], method=["gradcam", product, norm], target=0)
    assert list(explanation.evidence) == [
        f"{layer}/{m}" for m in ("gradcam", "product", "norm") for layer in ("1", "5")
    ]
    alone = explain(model, images, layers="5", target=0)
    torch.testing.assert_close(explanation.evidence["5/gradcam"], alone.evidence["5"])
    torch.testing.assert_close(explanation.evidence["5/norm"], model[:6](images).detach().norm(dim=1))
    assert explanation.layers["1/norm"].name == "1"
    twins = explain(model, images, layers="5", method=[lambda a, g: a.sum(1), lambda a, g: g.sum(1)], target=0)
    assert len(twins.evidence) == 2  # neither replaces the other
    # After global average pooling, the gradient is constant over the map, and both methods agree.
    pooled = torch.nn.Sequential(*model[:6], torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    both = explain(pooled, images, layers="5", method=["gradcam", product], target=0)
    torch.testing.assert_close(both.evidence["5/gradcam"], both.evidence["5/product"])


def test_invalid_methods_raise():
    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    with pytest.raises(TypeError, match="a callable of"):
        coerce_method(lambda: None)
    with pytest.raises(ValueError, match="at least one method"):
        explain(model, images, method=[])
    assert all(coerce_method(name) is METHODS[name] and get_method_name(name) == name for name in METHODS)
