"""Bounds of a mean: against scipy's bootstrap, and as often right as they say."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import bootstrap

from lightning_gradcam.stability.statistics import bootstrap_bounds


@pytest.mark.parametrize("count", [16, 64, 300])
def test_equals_scipys_percentile_bootstrap(count):
    values = torch.rand(count, generator=torch.Generator().manual_seed(1)) ** 3
    low, high = bootstrap_bounds(values)
    theirs = bootstrap((values.numpy(),), lambda x, axis: x.mean(axis), confidence_level=0.9, method="percentile",
                       n_resamples=10_000, rng=0).confidence_interval  # fmt: skip
    width = float(theirs.high - theirs.low)
    assert low == pytest.approx(theirs.low, abs=0.05 * width)
    assert high == pytest.approx(theirs.high, abs=0.05 * width)
    assert bootstrap_bounds(values) == (low, high)


def test_one_value_and_equal_values_have_no_width():
    assert bootstrap_bounds(torch.tensor([0.5])) == (0.5, 0.5)
    low, high = bootstrap_bounds(torch.full((70,), 0.25))
    assert low == high == 0.25


@pytest.mark.parametrize("count", [64, 128])
def test_bounds_hold_about_as_often_as_they_say(count):
    """On skewed similarities: 1 minus the square of a uniform number, whose mean is 2/3."""
    generator = torch.Generator().manual_seed(0)
    held = torch.zeros(2)
    for _ in range(200):
        low, high = bootstrap_bounds(1 - torch.rand(count, generator=generator) ** 2, draws=1000)
        held += torch.tensor([low <= 2 / 3, high >= 2 / 3])
    assert (held / 200 > 0.91).all()
    assert (held / 200 < 0.99).all()
