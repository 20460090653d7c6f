"""Numbers about maps against scipy and slow replicas; degenerate maps as the table of definitions says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from models import examples
from scipy.stats import spearmanr

from lightning_gradcam.explanation import CONSTANT
from lightning_gradcam.stability import gini, mean_and_error, spearman


def is_constant(values: np.ndarray) -> bool:
    """Within the range where showing it would stretch rounding errors; not for maps on the very edge of it."""
    most, least = float(values.max()), float(values.min())
    assume(most == 0 or abs((most - least) / most - CONSTANT) > 1e-6)
    return most > 0 and most - least < CONSTANT * most


def expected_spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The table of definitions, then scipy in float64."""
    a, b = a.ravel(), b.ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    if (a == 0).all() and (b == 0).all():
        return math.nan
    if is_constant(a) or is_constant(b):
        return math.nan
    if (a == 0).all() or (b == 0).all():
        return 0.0
    return float(spearmanr(a.astype(np.float64), b.astype(np.float64)).statistic)


@st.composite
def maps(draw, count: int = 2):
    """Several maps of one grid: random, tied, one-hot, tiny, constant, zero, or not finite."""
    grid = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))

    def one() -> np.ndarray:
        kind = draw(st.sampled_from(["random", "random", "tied", "one-hot", "constant", "zero", "nan"]))
        if kind == "random":
            values = draw(arrays(np.float32, grid, elements=st.floats(0, 10, width=32, allow_subnormal=False)))
        elif kind == "tied":
            values = draw(arrays(np.float32, grid, elements=st.sampled_from([0.0, 0.0, 1.0, 2.0])))
        elif kind == "one-hot":
            values = np.zeros(grid, np.float32)
            values.flat[draw(st.integers(0, values.size - 1))] = 3
        else:
            values = np.full(grid, 0.0 if kind == "zero" else 0.7, np.float32)
        if kind == "nan":
            values.flat[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from([np.nan, np.inf]))
        return values * np.float32(draw(st.sampled_from([1, 1, 1e-30, 1e30])))

    return [np.stack([one() for _ in range(rows)]) for rows in [draw(st.sampled_from([1, 1, 4]))] * count]


@examples(300)
@given(maps())
def test_spearman_equals_scipy_and_is_symmetric_and_bounded(pair):
    a, b = pair
    tiny = np.finfo(np.float32).tiny
    assume(not any(((x > 0) & (x < tiny)).any() for x in pair))  # processors may count those as zero
    found = spearman(torch.from_numpy(a), torch.from_numpy(b))
    expected = [expected_spearman(one, other) for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(spearman(torch.from_numpy(b), torch.from_numpy(a)), found)
    assert (found.isnan() | (found.abs() <= 1)).all()
    itself = spearman(torch.from_numpy(a), torch.from_numpy(a))
    assert (itself.isnan() | (itself == 1)).all()  # exactly


@examples(100)
@given(st.data())
def test_spearman_is_invariant_under_monotone_change(data):
    ranks = data.draw(arrays(np.int64, (2, 3, 4), elements=st.integers(0, 9)))
    ranks[:, 0, 0] = 0  # a map that touches zero is never constant, whatever its values
    steps = data.draw(arrays(np.float32, 9, elements=st.floats(2**-20, 2**13, width=32)))
    values = np.concatenate([[0], np.cumsum(steps.astype(np.float64))])
    assume((np.diff(values.astype(np.float32)) > 0).all())
    a, b = (torch.from_numpy(r[None].astype(np.float32)) for r in ranks)
    changed = torch.from_numpy(values[ranks[0]][None].astype(np.float32))
    torch.testing.assert_close(spearman(changed, b), spearman(a, b), rtol=0, atol=0, equal_nan=True)


def test_spearman_of_whole_photos_is_right_to_the_last_bit():
    a = torch.rand(4, 224, 224)
    b = (a + torch.rand(4, 224, 224)).round(decimals=2)  # with ties
    expected = [spearmanr(x.double().ravel(), y.double().ravel()).statistic for x, y in zip(a, b, strict=True)]
    assert torch.equal(spearman(a, b), torch.tensor(expected, dtype=torch.float32))
    assert spearman(a, a).tolist() == [1] * 4
    assert spearman(a, -a + 1).tolist() == [-1] * 4
    with pytest.raises(ValueError, match="of one shape"):
        spearman(a, b[:1])


ZERO, CONSTANT_MAP, MAP, BROKEN = [0.0, 0, 0], [2.0, 2, 2], [0.0, 1, 2], [math.nan, 1, 2]


@pytest.mark.parametrize(("a", "b", "answer"), [
    (ZERO, ZERO, math.nan), (ZERO, MAP, 0), (ZERO, CONSTANT_MAP, math.nan), (CONSTANT_MAP, MAP, math.nan),
    (CONSTANT_MAP, CONSTANT_MAP, math.nan), (BROKEN, MAP, math.nan), (BROKEN, ZERO, math.nan), (MAP, MAP, 1),
    ([1.0, 1.0005, 1], MAP, math.nan), ([0, 1e-37, 1e-9], MAP, 1),
])  # fmt: skip
def test_the_table_of_degenerate_maps(a, b, answer):
    for one, other in ((a, b), (b, a)):
        np.testing.assert_equal(float(spearman(torch.tensor([one]), torch.tensor([other]))), answer)


@examples(150)
@given(maps(count=1))
def test_gini_equals_a_replica(one):
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
def test_mean_and_error_equal_numpy_over_the_values_that_are_there(values):
    mean, error = mean_and_error(torch.from_numpy(values))
    there = values[~np.isnan(values)].astype(np.float64)
    assert float(mean) == pytest.approx(there.mean() if len(there) else math.nan, abs=1e-6, nan_ok=True)
    expected = there.std(ddof=1) / np.sqrt(len(there)) if len(there) > 1 else math.nan
    assert float(error) == pytest.approx(expected, abs=1e-6, nan_ok=True)
