"""Similarities of maps, against scipy and slow replicas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from lightning_gradcam.stability import SIMILARITIES as MEASURES, similarity, spearman, ssim
from tests.helpers.map_replicas import (
    ORACLES,
    expected,
    maps,
    on_the_edge,
)
from tests.helpers.models import examples


@examples(300)
@given(pair=maps())
def test_similarity_equals_replica_and_is_symmetric_and_bounded(pair):
    a, b = pair
    tiny = np.finfo(np.float32).tiny
    assume(not any(((x > 0) & (x < tiny)).any() for x in pair))  # processors may count those as zero
    assume(not on_the_edge(a) and not on_the_edge(b))
    for name, measure in MEASURES.items():
        found = measure(torch.from_numpy(a), torch.from_numpy(b))
        answers = [expected(name, one, other) for one, other in zip(a, b, strict=True)]
        np.testing.assert_allclose(found, answers, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(measure(torch.from_numpy(b), torch.from_numpy(a)), found, err_msg=name)
        assert (found.isnan() | (found.abs() <= 1)).all(), name
        itself = measure(torch.from_numpy(a), torch.from_numpy(a))
        same = 0 if name == "center_shift" else 1
        tolerance = 1e-6 if name in ("pearson", "cosine") else 0
        assert (itself.isnan() | ((itself - same).abs() <= tolerance)).all(), name
        singles = [measure(torch.from_numpy(a[i : i + 1]), torch.from_numpy(b[i : i + 1])) for i in range(len(a))]
        np.testing.assert_array_equal(torch.cat(singles), found, err_msg=name)


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


def test_spearman_of_large_maps_is_exact():
    a = torch.rand(4, 224, 224)
    b = (a + torch.rand(4, 224, 224)).round(decimals=2)  # with ties
    expected = [spearmanr(x.double().ravel(), y.double().ravel()).statistic for x, y in zip(a, b, strict=True)]
    assert torch.equal(spearman(a, b), torch.tensor(expected, dtype=torch.float32))
    assert spearman(a, a).tolist() == [1] * 4
    assert spearman(a, -a + 1).tolist() == [-1] * 4


def test_every_similarity_has_a_replica():
    assert set(ORACLES) == set(MEASURES)
    maps = torch.rand(2, 3, 3)
    assert torch.equal(similarity(maps, maps.flip(1)), spearman(maps, maps.flip(1)))
    with pytest.raises(ValueError, match=r"'topp'\. Did you mean 'topk'"):
        similarity(maps, maps, "topp")


@pytest.mark.parametrize("name", MEASURES)
def test_similarity_of_two_shapes_raises(name):
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
def test_similarity_of_degenerate_maps_follows_the_table(a, b, answer):
    for measure, (one, other) in itertools.product(MEASURES.values(), ((a, b), (b, a))):
        found = float(measure(torch.tensor([one]), torch.tensor([other])))
        if measure is MEASURES["center_shift"] and answer == 0:
            answer = math.nan  # a map of zeros has no center
        assert answer == 1 or found == pytest.approx(answer, nan_ok=True)
    if answer == 1:
        assert spearman(torch.tensor([a]), torch.tensor([b])) == 1
