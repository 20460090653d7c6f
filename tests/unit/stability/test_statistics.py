"""Statistics of maps and values, against scipy, NumPy and slow replicas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import bootstrap

from lightning_gradcam.stability import gini, mean_and_error
from lightning_gradcam.stability.statistics import bootstrap_bounds
from tests.helpers.map_replicas import maps
from tests.helpers.models import examples


@pytest.mark.parametrize("count", [16, 64, 300])
def test_bootstrap_bounds_equal_scipy(count):
    values = torch.rand(count, generator=torch.Generator().manual_seed(1)) ** 3
    low, high = bootstrap_bounds(values)
    theirs = bootstrap((values.numpy(),), lambda x, axis: x.mean(axis), confidence_level=0.9, method="percentile",
                       n_resamples=10_000, rng=0).confidence_interval  # fmt: skip
    width = float(theirs.high - theirs.low)
    assert low == pytest.approx(theirs.low, abs=0.05 * width)
    assert high == pytest.approx(theirs.high, abs=0.05 * width)
    assert bootstrap_bounds(values) == (low, high)


def test_bootstrap_bounds_of_equal_values_coincide():
    assert bootstrap_bounds(torch.tensor([0.5])) == (0.5, 0.5)
    low, high = bootstrap_bounds(torch.full((70,), 0.25))
    assert low == high == 0.25


@pytest.mark.parametrize("count", [64, 128])
def test_bootstrap_bounds_have_their_confidence_level(count):
    """On skewed similarities: 1 minus the square of a uniform number, whose mean is 2/3."""
    generator = torch.Generator().manual_seed(0)
    held = torch.zeros(2)
    for _ in range(200):
        low, high = bootstrap_bounds(1 - torch.rand(count, generator=generator) ** 2, draws=1000)
        held += torch.tensor([low <= 2 / 3, high >= 2 / 3])
    assert (held / 200 > 0.91).all()
    assert (held / 200 < 0.99).all()


@examples(150)
@given(maps(count=1))
def test_gini_equals_replica(one):
    [values] = one
    found = gini(torch.from_numpy(values))
    for x, number in zip(values.reshape(len(values), -1).astype(np.float64), found.tolist(), strict=True):
        if not np.isfinite(x).all() or x.sum() == 0:
            assert math.isnan(number)
            continue
        differences = sum(abs(i - j) for i in x for j in x)  # the mean difference of all pairs over twice the mean
        assert number == pytest.approx(differences / (2 * len(x) ** 2 * x.mean()), abs=1e-6)
        assert 0 <= number <= 1 - 1 / len(x) + 1e-6


@examples(100)
@given(arrays(np.float32, st.integers(1, 8), elements=st.floats(-2, 2, width=16) | st.just(math.nan)))
def test_mean_and_error_equal_numpy_without_nan(values):
    mean, error = mean_and_error(torch.from_numpy(values))
    there = values[~np.isnan(values)].astype(np.float64)
    assert float(mean) == pytest.approx(there.mean() if len(there) else math.nan, abs=1e-6, nan_ok=True)
    expected = there.std(ddof=1) / np.sqrt(len(there)) if len(there) > 1 else math.nan
    assert float(error) == pytest.approx(expected, abs=1e-6, nan_ok=True)
