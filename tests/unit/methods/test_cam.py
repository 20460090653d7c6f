"""Every registered equation against a slow float64 replica, and properties of evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from lightning_gradcam import explain
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods import EQUATIONS, METHODS
from tests.helpers.models import assert_close, examples, perturbed, plain_cnn
from tests.helpers.replicas import DEGREE, REPLICAS

numbers = st.integers(-24, 24).map(lambda n: n / 8)  # sums are exact, so that zero is zero in any precision


NEVER_NEGATIVE = {"gradcam_elementwise"}


def test_every_equation_has_a_replica():
    assert set(REPLICAS) == set(EQUATIONS)


@pytest.mark.parametrize("name", EQUATIONS)
@examples(40)
@given(data=st.data())
def test_equation_equals_its_replica(name, data):
    grid = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), *grid)
    activations, gradients = (torch.from_numpy(data.draw(arrays(np.float64, shape, elements=numbers))) for _ in "ag")
    expected = REPLICAS[name](activations, gradients)
    evidence = METHODS[name](activations.float(), gradients.float())
    assert evidence.shape == (shape[0], *grid)
    assert evidence.isfinite().all()
    sure = ~expected.isnan()
    np.testing.assert_allclose(evidence.double()[sure], expected[sure], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
def test_equation_is_signed_and_independent_of_the_batch(name):
    activations, gradients = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 5, 5)
    batch = METHODS[name](activations, gradients)
    images = torch.cat([METHODS[name](activations[i : i + 1], gradients[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(batch, images)
    assert (batch < 0).any() == (name not in NEVER_NEGATIVE)
    assert (batch > 0).any()


@pytest.mark.parametrize("name", EQUATIONS)
def test_equation_equals_replica_in_wide_and_flat_shapes(name):
    for shape in ((2, 40, 3, 4), (2, 5, 8, 9), (1, 3, 6), (1, 2, 3, 2, 3)):
        activations, gradients = torch.randn(shape).relu() + 0.1, torch.randn(shape)
        expected = REPLICAS[name](activations.double(), gradients.double())
        assert not expected.isnan().any()
        assert_close(METHODS[name](activations, gradients), expected, 1e-5)


@pytest.mark.parametrize("name", DEGREE)
@pytest.mark.parametrize("factor", [1e-9, 10.0, 1e6])
def test_score_factor_only_scales_evidence(name, factor):
    activations, gradients = torch.randn(2, 6, 5, 5), torch.randn(2, 6, 5, 5)
    expected = METHODS[name](activations, gradients) * factor ** DEGREE[name]
    assert_close(METHODS[name](activations, gradients * factor), expected, 1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
def test_small_numbers_are_not_lost(name):
    # The package uses no fixed epsilon: one of 1e-6 would dominate these numbers.
    activations, gradients = torch.randn(2, 6, 5, 5).relu() * 1e-12, torch.randn(2, 6, 5, 5) * 1e-12
    expected = REPLICAS[name](activations.double(), gradients.double())
    assert_close(METHODS[name](activations, gradients), expected, 1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
def test_zero_stays_zero_and_nan_stays_in_its_image(name):
    activations, gradients = torch.randn(3, 6, 5, 5).relu(), torch.randn(3, 6, 5, 5)
    activations[:, 2], gradients[:, 3] = 0, 0
    assert METHODS[name](activations, gradients).isfinite().all()
    assert not METHODS[name](activations * 0, gradients).any()
    if name != "eigencam":
        assert not METHODS[name](activations, gradients * 0).any()
    broken, changed = activations.clone(), gradients.clone()
    broken[1, 0, 0, 0] = changed[1, 0, 0, 0] = torch.nan
    evidence = METHODS[name](broken, changed)
    torch.testing.assert_close(evidence[[0, 2]], METHODS[name](activations, gradients)[[0, 2]])
    assert not evidence[1].isfinite().all()


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_component_sign_is_stable(name):
    torch.manual_seed(1)
    activations, gradients = torch.randn(8, 6, 5, 5).relu() + torch.rand(8, 1, 5, 5) * 4, torch.rand(8, 6, 5, 5)
    component = METHODS[name](activations, gradients).flatten(1)
    total = (activations if name == "eigencam" else activations * gradients).sum(1).flatten(1)
    assert ((component * (total - total.mean(1, keepdim=True))).sum(1) > 0).all()
    for _ in range(20):
        changed = METHODS[name](activations + 0.05 * torch.randn(8, 6, 5, 5), gradients).flatten(1)
        assert (torch.cosine_similarity(component, changed) > 0.9).all()
    # The order of the channels, which depends on the initialization, does not change the component.
    order = torch.randperm(6)
    assert_close(METHODS[name](activations[:, order], gradients[:, order]).flatten(1), component, 1e-5)


def test_cam_is_scaled_gradcam_and_needs_pooling():
    model = perturbed(plain_cnn())
    images = torch.randn(3, 3, 12, 12)
    pooled = torch.nn.Sequential(*model[:6], torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    evidence = explain(pooled, images, layers="5", method=["cam", "gradcam"], target=[2, 0, 1])
    assert_close(evidence.evidence["5/cam"], 36 * evidence.evidence["5/gradcam"], 1e-6)
    weights, activations = pooled[8].weight[[2, 0, 1]], pooled[:6](images)
    assert_close(evidence.evidence["5/cam"], torch.einsum("nk,nkhw->nhw", weights, activations).detach(), 1e-5)
    with pytest.raises(NotExplainableError, match=r"takes the mean of the whole map.*layer '5'.*`method='gradcam'`"):
        explain(model, images, layers="5", method=["gradcam", "cam"], target=[2, 0, 1])


def test_xgradcam_ignores_channels_that_cancel():
    activations, gradients = torch.randn(1, 2, 100), torch.randn(1, 2, 100)
    activations[0, 1] -= activations[0, 1].mean()
    total = activations[0, 1].sum()
    assert (
        0 < abs(total) < 1e-6 * activations[0, 1].abs().sum()
    )  # without the guard, the weight would be about a million
    assert torch.equal(
        METHODS["xgradcam"](activations, gradients), METHODS["xgradcam"](activations[:, :1], gradients[:, :1])
    )
