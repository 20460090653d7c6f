"""Heatmaps: stretched, resized, and on a common scale, against replicas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from lightning_gradcam import explain
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import MapStatus, find_status
from tests.helpers.lit import Bars, Lit
from tests.helpers.models import examples, perturbed


def enlarge(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation between the cells' centers along one axis after another, in float64."""
    values = values.astype(np.float64)
    for axis, wanted in enumerate(size):
        cells_here = values.shape[axis]
        centers = (np.arange(wanted) + 0.5) * cells_here / wanted - 0.5
        values = np.apply_along_axis(lambda row, at=centers: np.interp(at, np.arange(len(row)), row), axis, values)
    return values


def stretch(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


@examples(60)
@given(st.data())
def test_heatmaps_equal_a_replica_in_one_to_three_dimensions(data):
    grid = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    size = tuple(g * data.draw(st.integers(1, 4)) + data.draw(st.integers(0, 2)) for g in grid)
    evidence = data.draw(arrays(np.float32, (2, *grid), elements=st.floats(-4, 4, width=16)))
    tensor = torch.from_numpy(evidence)
    explanation = Explanation({"a": tensor}, torch.zeros(2, 0), None, size, map_status={"a": find_status(tensor)})
    own, common = explanation.heatmaps()["a"], explanation.heatmaps(scale=2.0)["a"]
    other_size = explanation.heatmaps(size=tuple(s + 1 for s in size))["a"]
    assert own.shape == common.shape == (2, *size)
    for i, code in enumerate(explanation.map_status["a"].tolist()):
        maps = np.maximum(evidence[i], 0)
        expected = (
            enlarge(maps / 2, size).clip(0, 1) if code in (MapStatus.READABLE, MapStatus.CONSTANT) else np.zeros(size)
        )
        np.testing.assert_allclose(common[i].numpy(), expected, atol=1e-5)
        if code == MapStatus.READABLE:
            enlarged = enlarge(stretch(maps), size)
            if enlarged.max() - enlarged.min() > 1e-3:  # else only the peaks' rounding errors are stretched
                np.testing.assert_allclose(own[i].numpy(), stretch(enlarged), atol=1e-3)
                assert own[i].min() == 0
                assert own[i].max() == pytest.approx(1, abs=1e-6)
            assert other_size[i].shape == tuple(s + 1 for s in size)
        else:
            assert (own[i] == 0).all()


def test_common_scale_keeps_magnitudes_apart():
    evidence = torch.tensor([[[0.0, 1.0]], [[0.0, 4.0]], [[3.0, 3.0]], [[-1.0, -1.0]]])
    explanation = Explanation({"a": evidence}, torch.zeros(4, 0), None, (1, 2), map_status={"a": find_status(evidence)})
    expected = torch.tensor([[[0.0, 0.5]], [[0.0, 1.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    assert torch.equal(explanation.heatmaps(scale=2.0)["a"], expected)  # a constant map has a magnitude
    assert torch.equal(explanation.heatmaps(scale=torch.tensor(2.0))["a"], expected)
    assert (
        to_heatmaps(evidence[3:], explanation.map_status["a"][3:], (2, 2), torch.tensor(0.0)) == 0
    ).all()  # none so far
    assert explanation.heatmaps()["a"][:2].amax((1, 2)).tolist() == [1, 1]
    assert explanation.degenerate["a"] == (None, None, MapStatus.CONSTANT.text, MapStatus.ALL_ZERO.text)


def test_nearest_shows_cells_and_bicubic_stays_in_range():
    data = Bars(3)
    images = torch.stack([data[i][0] for i in range(3)])
    found = explain(perturbed(Lit()), images, layers="features", target=1)
    cells = found.heatmaps(interpolation="nearest")["features"]
    grid = found.maps["features"].shape[1:]
    factor = [a // b for a, b in zip(images.shape[2:], grid, strict=True)]
    blocks = cells[:, :: factor[0], :: factor[1]]
    assert torch.equal(blocks.repeat_interleave(factor[0], 1).repeat_interleave(factor[1], 2), cells)
    smooth = found.heatmaps(interpolation="bicubic")["features"]
    assert smooth.amin() == 0
    assert smooth.amax() == 1
    scaled = found.heatmaps(interpolation="bicubic", scale=float(found.maps["features"].max()))["features"]
    assert 0 <= scaled.min() <= scaled.max() <= 1
    peak = torch.zeros(1, 8, 8)
    peak[0, 3, 3] = 1  # what swings below zero beside it must not lift what is zero
    shown = to_heatmaps(peak, torch.zeros(1), (64, 64), interpolation="bicubic")
    assert not shown[0, 48:].any()
    assert not torch.allclose(smooth, found.heatmaps()["features"], atol=1e-3)
    with pytest.raises(
        ValueError, match=r"of 2-dimensional maps to be 'bilinear', 'nearest', 'bicubic', but got 'area'"
    ):
        found.heatmaps(interpolation="area")
    with pytest.raises(ValueError, match="of 1-dimensional maps to be 'bilinear', 'nearest', but got 'bicubic'"):
        to_heatmaps(peak[0], torch.zeros(8), (9,), interpolation="bicubic")
