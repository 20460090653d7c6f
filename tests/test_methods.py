"""Every registered method against a slow float64 replica and the laws that evidence obeys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from models import examples, plain_cnn, plain_gradcam

from lightning_gradcam import explain
from lightning_gradcam.methods import METHODS, coerce_method, method_name

REPLICAS = {"gradcam": plain_gradcam}
"""A method is tested by being entered here, in float64 and with loops."""

numbers = st.floats(-3, 3, width=16)


def test_every_method_has_a_replica():
    assert set(REPLICAS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
@examples(40)
@given(data=st.data())
def test_equals_its_replica(name, data):
    grid = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), *grid)
    activations, gradients = (torch.from_numpy(data.draw(arrays(np.float64, shape, elements=numbers))) for _ in "ag")
    expected = REPLICAS[name](activations, gradients)
    found = METHODS[name](activations.float(), gradients.float())
    assert found.shape == (shape[0], *grid)
    np.testing.assert_allclose(found.double(), expected, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_rows_do_not_touch_one_another_and_evidence_is_signed(name):
    activations, gradients = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 5, 5)
    whole = METHODS[name](activations, gradients)
    rows = torch.cat([METHODS[name](activations[i : i + 1], gradients[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(whole, rows)
    assert (whole < 0).any()
    assert (whole > 0).any()


def test_several_methods_and_ones_of_the_users_own():
    def product(activations, gradients):
        return (activations * gradients).sum(1)

    def norm(passes):
        return {key: a.norm(dim=1) for key, a in passes.activations.items()}

    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    found = explain(model, images, layers=["1", "5"], method=["gradcam", product, norm], target=0)
    assert list(found.evidence) == [f"{layer}/{m}" for m in ("gradcam", "product", "norm") for layer in ("1", "5")]
    alone = explain(model, images, layers="5", target=0)
    torch.testing.assert_close(found.evidence["5/gradcam"], alone.evidence["5"])
    torch.testing.assert_close(found.evidence["5/norm"], model[:6](images).detach().norm(dim=1))
    assert found.layers["1/norm"].name == "1"
    twins = explain(model, images, layers="5", method=[lambda a, g: a.sum(1), lambda a, g: g.sum(1)], target=0)
    assert len(twins.evidence) == 2  # none takes the other's place
    # Behind a mean over a map, the gradient is the same everywhere: then both methods are one.
    pooled = torch.nn.Sequential(*model[:6], torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    both = explain(pooled, images, layers="5", method=["gradcam", product], target=0)
    torch.testing.assert_close(both.evidence["5/gradcam"], both.evidence["5/product"])


def test_what_is_wrong_is_said():
    def channels(activations, gradients):
        return activations.mean((2, 3))

    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    with pytest.raises(ValueError, match=r"Expected evidence of shape \(2, \*grid\) .*'channels', but got \(2, 8\)"):
        explain(model, images, method=channels)
    with pytest.raises(TypeError, match="a callable of"):
        coerce_method(lambda: None)
    with pytest.raises(ValueError, match="at least one method"):
        explain(model, images, method=[])
    assert all(coerce_method(name) is METHODS[name] and method_name(name) == name for name in METHODS)
