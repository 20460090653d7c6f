"""Numbers about maps against scipy and slow replicas; degenerate maps as the table of definitions says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import center_of_mass
from scipy.spatial.distance import cosine as cosine_distance
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from lightning_gradcam.stability import SIMILARITIES as MEASURES, gini, mean_and_error, similarity, spearman, ssim
from lightning_gradcam.utils.numerics import CONSTANT
from tests.helpers.models import examples


def is_constant(values: np.ndarray) -> bool:
    """Within the range where showing it would stretch rounding errors."""
    most, least = float(values.max()), float(values.min())
    return most > 0 and most - least < CONSTANT * most


def plain_topk(a: np.ndarray, b: np.ndarray) -> float:
    """Cell by cell."""
    k = 0.2 * a.size

    def weight(values: np.ndarray, i: int) -> float:
        greater, ties = (values > values[i]).sum(), (values == values[i]).sum()
        return min(max((k - greater) / ties, 0), 1)

    return sum(min(weight(a.ravel(), i), weight(b.ravel(), i)) for i in range(a.size)) / k


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Window by window."""
    x, y = (v.astype(np.float64) / v.max() for v in (a, b))
    window = [min(3, size) for size in a.shape]
    values = []
    for start in itertools.product(*(range(size - w + 1) for size, w in zip(a.shape, window, strict=True))):
        at = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
        p, q = x[at].ravel(), y[at].ravel()
        both = ((p - p.mean()) * (q - q.mean())).mean()
        above = (2 * p.mean() * q.mean() + 1e-4) * (2 * both + 9e-4)
        values.append(above / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4)))
    return float(np.mean(values))


def plain_pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def plain_shift(a: np.ndarray, b: np.ndarray) -> float:
    """With scipy's centres of mass; not cut to the grid."""
    first, second = (np.array(center_of_mass(v.astype(np.float64) / v.max())) for v in (a, b))
    corner = np.array(a.shape) - 1
    return float(np.linalg.norm(first - second) / (np.linalg.norm(corner) or 1))


ORACLES = {
    "spearman": lambda a, b: float(spearmanr(a.ravel().astype(np.float64), b.ravel().astype(np.float64)).statistic),
    "topk": plain_topk,
    "ssim": plain_ssim,
    "pearson": lambda a, b: plain_pearson(*(v.ravel().astype(np.float64) / v.max() for v in (a, b))),
    "cosine": lambda a, b: 1 - cosine_distance(*(v.ravel().astype(np.float64) / v.max() for v in (a, b))),
    "center_shift": plain_shift,
}
"""A measure is tested by being entered here."""


def on_the_edge(values: np.ndarray) -> bool:
    """Of what counts as constant."""
    return any(
        np.isfinite(m).all() and m.max() > 0 and abs((m.max() - m.min()) / m.max() - CONSTANT) <= 1e-6 for m in values
    )


def expected(name: str, a: np.ndarray, b: np.ndarray) -> float:
    """The table of definitions, then a replica in float64."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    if (a == 0).all() and (b == 0).all():
        return math.nan
    if is_constant(a) or is_constant(b):
        return math.nan
    if (a == 0).all() or (b == 0).all():
        return math.nan if name == "center_shift" else 0.0
    return ORACLES[name](a, b)


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


@pytest.mark.parametrize("name", MEASURES)
@examples(300)
@given(pair=maps())
def test_equals_its_replica_and_is_symmetric_and_bounded(name, pair):
    a, b = pair
    tiny = np.finfo(np.float32).tiny
    assume(not any(((x > 0) & (x < tiny)).any() for x in pair))  # processors may count those as zero
    assume(not on_the_edge(a) and not on_the_edge(b))
    measure = MEASURES[name]
    found = measure(torch.from_numpy(a), torch.from_numpy(b))
    answers = [expected(name, one, other) for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, answers, atol=1e-6)
    np.testing.assert_array_equal(measure(torch.from_numpy(b), torch.from_numpy(a)), found)
    assert (found.isnan() | (found.abs() <= 1)).all()
    itself = measure(torch.from_numpy(a), torch.from_numpy(a))
    same = 0 if name == "center_shift" else 1
    assert (itself.isnan() | ((itself - same).abs() <= (1e-6 if name in ("pearson", "cosine") else 0))).all()
    singles = [measure(torch.from_numpy(a[i : i + 1]), torch.from_numpy(b[i : i + 1])) for i in range(len(a))]
    np.testing.assert_array_equal(torch.cat(singles), found)


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


def test_every_similarity_has_a_replica_and_a_name():
    assert set(ORACLES) == set(MEASURES)
    maps = torch.rand(2, 3, 3)
    assert torch.equal(similarity(maps, maps.flip(1)), spearman(maps, maps.flip(1)))
    with pytest.raises(ValueError, match=r"'topp'\. Did you mean 'topk'"):
        similarity(maps, maps, "topp")


@pytest.mark.parametrize("name", MEASURES)
def test_maps_of_two_shapes_cannot_be_compared(name):
    with pytest.raises(ValueError, match="of one shape"):
        MEASURES[name](torch.rand(2, 3, 3), torch.rand(1, 3, 3))


def test_ssim_equals_scikit_image():
    a, b = torch.rand(3, 9, 7), torch.rand(3, 9, 7)
    scaled = [(x / x.max()).numpy().astype(np.float64) for x in (*a, *b)]
    theirs = [
        structural_similarity(x, y, win_size=3, data_range=1, use_sample_covariance=False)
        for x, y in zip(scaled[:3], scaled[3:], strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b), theirs, atol=1e-6)


ZERO, CONSTANT_MAP, MAP, BROKEN = [0.0, 0, 0], [2.0, 2, 2], [0.0, 1, 2], [math.nan, 1, 2]


@pytest.mark.parametrize(("a", "b", "answer"), [
    (ZERO, ZERO, math.nan), (ZERO, MAP, 0), (ZERO, CONSTANT_MAP, math.nan), (CONSTANT_MAP, MAP, math.nan),
    (CONSTANT_MAP, CONSTANT_MAP, math.nan), (BROKEN, MAP, math.nan), (BROKEN, ZERO, math.nan), (MAP, MAP, 1),
    ([1.0, 1.0005, 1], MAP, math.nan), ([0, 1e-37, 1e-9], MAP, 1),
])  # fmt: skip
def test_the_table_of_degenerate_maps(a, b, answer):
    for measure, (one, other) in itertools.product(MEASURES.values(), ((a, b), (b, a))):
        found = float(measure(torch.tensor([one]), torch.tensor([other])))
        if measure is MEASURES["center_shift"] and answer == 0:
            answer = math.nan  # what is zero everywhere has no centre
        assert answer == 1 or found == pytest.approx(answer, nan_ok=True)
    if answer == 1:
        assert spearman(torch.tensor([a]), torch.tensor([b])) == 1


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
