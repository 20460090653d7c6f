"""Every registered method against a slow float64 replica and the laws that evidence obeys."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from lightning_gradcam import Probe, explain
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods import EQUATIONS, METHODS, apply as evidence
from lightning_gradcam.methods.resolve import coerce_method, get_method_name
from tests.helpers.models import assert_close, examples, perturbed, plain_cnn
from tests.helpers.replicas import REPLICAS

numbers = st.integers(-24, 24).map(lambda n: n / 8)  # sums are exact, so that zero is zero in any precision

NEVER_NEGATIVE = {"gradcam_elementwise"}
DEGREE = dict.fromkeys(EQUATIONS, 1) | {"eigencam": 0}
"""Evidence grows with this power of a factor on the score; Grad-CAM++ mixes gradients with activations."""
del DEGREE["gradcam++"]


def test_every_method_has_a_replica():
    assert set(REPLICAS) == set(EQUATIONS)


@pytest.mark.parametrize("name", EQUATIONS)
@examples(40)
@given(data=st.data())
def test_equals_its_replica(name, data):
    grid = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), *grid)
    activations, gradients = (torch.from_numpy(data.draw(arrays(np.float64, shape, elements=numbers))) for _ in "ag")
    expected = REPLICAS[name](activations, gradients)
    found = METHODS[name](activations.float(), gradients.float())
    assert found.shape == (shape[0], *grid)
    assert found.isfinite().all()
    sure = ~expected.isnan()
    np.testing.assert_allclose(found.double()[sure], expected[sure], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
def test_rows_do_not_touch_one_another_and_evidence_is_signed(name):
    activations, gradients = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 5, 5)
    whole = METHODS[name](activations, gradients)
    rows = torch.cat([METHODS[name](activations[i : i + 1], gradients[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(whole, rows)
    assert (whole < 0).any() == (name not in NEVER_NEGATIVE)
    assert (whole > 0).any()


@pytest.mark.parametrize("name", EQUATIONS)
def test_more_channels_than_places_and_fewer_equal_the_replica(name):
    for shape in ((2, 40, 3, 4), (2, 5, 8, 9), (1, 3, 6), (1, 2, 3, 2, 3)):
        activations, gradients = torch.randn(shape).relu() + 0.1, torch.randn(shape)
        expected = REPLICAS[name](activations.double(), gradients.double())
        assert not expected.isnan().any()
        assert_close(METHODS[name](activations, gradients), expected, 1e-5)


@pytest.mark.parametrize("name", DEGREE)
@pytest.mark.parametrize("factor", [1e-9, 10.0, 1e6])
def test_a_factor_on_the_score_changes_no_map(name, factor):
    activations, gradients = torch.randn(2, 6, 5, 5), torch.randn(2, 6, 5, 5)
    expected = METHODS[name](activations, gradients) * factor ** DEGREE[name]
    assert_close(METHODS[name](activations, gradients * factor), expected, 1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
def test_faint_evidence_is_evidence(name):
    # No epsilon of a fixed size: with these numbers, one of 1e-6 would be all that is left.
    activations, gradients = torch.randn(2, 6, 5, 5).relu() * 1e-12, torch.randn(2, 6, 5, 5) * 1e-12
    expected = REPLICAS[name](activations.double(), gradients.double())
    assert_close(METHODS[name](activations, gradients), expected, 1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
def test_nothing_to_say_is_zero_and_what_is_not_finite_stays_in_its_row(name):
    activations, gradients = torch.randn(3, 6, 5, 5).relu(), torch.randn(3, 6, 5, 5)
    activations[:, 2], gradients[:, 3] = 0, 0
    assert METHODS[name](activations, gradients).isfinite().all()
    assert not METHODS[name](activations * 0, gradients).any()
    if name != "eigencam":
        assert not METHODS[name](activations, gradients * 0).any()
    broken, changed = activations.clone(), gradients.clone()
    broken[1, 0, 0, 0] = changed[1, 0, 0, 0] = torch.nan
    found = METHODS[name](broken, changed)
    torch.testing.assert_close(found[[0, 2]], METHODS[name](activations, gradients)[[0, 2]])
    assert not found[1].isfinite().all()


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_the_sign_of_a_component_does_not_flip_with_small_changes(name):
    torch.manual_seed(1)
    activations, gradients = torch.randn(8, 6, 5, 5).relu() + torch.rand(8, 1, 5, 5) * 4, torch.rand(8, 6, 5, 5)
    before = METHODS[name](activations, gradients).flatten(1)
    total = (activations if name == "eigencam" else activations * gradients).sum(1).flatten(1)
    assert ((before * (total - total.mean(1, keepdim=True))).sum(1) > 0).all()
    for _ in range(20):
        after = METHODS[name](activations + 0.05 * torch.randn(8, 6, 5, 5), gradients).flatten(1)
        assert (torch.cosine_similarity(before, after) > 0.9).all()
    # The same channels in another order, as after another initialisation, have the same component.
    order = torch.randperm(6)
    assert_close(METHODS[name](activations[:, order], gradients[:, order]).flatten(1), before, 1e-5)


def test_cam_is_gradcam_times_the_places_where_the_head_pools_and_is_refused_elsewhere():
    model = perturbed(plain_cnn())
    images = torch.randn(3, 3, 12, 12)
    pooled = torch.nn.Sequential(*model[:6], torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    found = explain(pooled, images, layers="5", method=["cam", "gradcam"], target=[2, 0, 1])
    assert_close(found.evidence["5/cam"], 36 * found.evidence["5/gradcam"], 1e-6)
    weights, activations = pooled[8].weight[[2, 0, 1]], pooled[:6](images)
    assert_close(found.evidence["5/cam"], torch.einsum("nk,nkhw->nhw", weights, activations).detach(), 1e-5)
    with pytest.raises(NotExplainableError, match=r"takes the mean of the whole map.*layer '5'.*`method='gradcam'`"):
        explain(model, images, layers="5", method=["gradcam", "cam"], target=[2, 0, 1])


def test_a_method_blind_to_gradients_asks_for_none():
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        model[-1].weight.zero_()
    found = explain(model, images, layers="5", method=["gradcam", "eigencam"], target=0)
    assert found.degenerate["5/gradcam"] == ("no gradient", "no gradient")
    assert found.degenerate["5/eigencam"] == (None, None)
    passes = namedtuple("passes", "layers activations probe")  # and no gradients to take
    assert evidence.apply_method(METHODS["eigencam"], passes({"5": None}, {"5": torch.rand(2, 3, 4, 4)}, Probe(images)))


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
    assert all(coerce_method(name) is METHODS[name] and get_method_name(name) == name for name in METHODS)


def test_xgradcam_gives_no_weight_to_what_cancels_up_to_rounding():
    activations, gradients = torch.randn(1, 2, 100), torch.randn(1, 2, 100)
    activations[0, 1] -= activations[0, 1].mean()
    total = activations[0, 1].sum()
    assert 0 < abs(total) < 1e-6 * activations[0, 1].abs().sum()  # so that the weight would be a million or so
    assert torch.equal(
        METHODS["xgradcam"](activations, gradients), METHODS["xgradcam"](activations[:, :1], gradients[:, :1])
    )
