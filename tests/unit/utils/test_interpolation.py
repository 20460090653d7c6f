"""Interpolation between cells at given centers, against `F.interpolate` and a replica in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional as F

from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import resize
from tests.helpers.models import examples


def read_plainly(values: np.ndarray, offset: float, step: float, size: int) -> np.ndarray:
    """Linear interpolation along the first axis in float64: half a cell of the edge, then a fade within one cell."""
    pixels = (np.arange(size) + 0.5) / size
    cells = (pixels - offset) / step
    inside = np.stack(
        [np.interp(cells, np.arange(len(values)), column) for column in values.reshape(len(values), -1).T], 1
    )
    beyond = np.maximum(np.maximum(-cells, cells - (len(values) - 1)), 0)
    faded = inside * np.clip(1.5 - beyond, 0, 1)[:, None]
    return faded.reshape(size, *values.shape[1:])


@examples(40)
@given(st.data())
def test_resize_at_centers_equals_a_replica(data):
    grid = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    size = tuple(data.draw(st.integers(1, 24)) for _ in grid)
    spread = st.floats(0.05, 0.5)
    centers = CellCenters(
        tuple(data.draw(st.floats(-0.3, 0.6)) for _ in grid),
        tuple(data.draw(spread) * data.draw(st.sampled_from([1, -1])) for _ in grid),
    )
    maps = torch.rand(2, *grid, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    expected = maps.double().numpy()
    for axis in range(len(grid)):
        moved = np.moveaxis(expected, axis + 1, 0)
        expected = np.moveaxis(read_plainly(moved, centers.offset[axis], centers.step[axis], size[axis]), 0, axis + 1)
    np.testing.assert_allclose(resize(maps, size, centers=centers).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("grid", "size"), [((5,), (17,)), ((3, 4), (16, 9)), ((2, 3, 4), (7, 9, 8)), ((6, 6), (3, 2))])
def test_resize_at_even_centers_equals_plain_stretching(grid, size):
    maps = torch.rand(2, *grid)
    for interpolation in ("bilinear", "nearest", *["bicubic"] * (len(grid) == 2)):
        expected = resize(maps, size, interpolation)
        assert torch.allclose(resize(maps, size, interpolation, CellCenters.spread(grid)), expected, atol=1e-6)


def test_nearest_shows_cells_of_their_own_width():
    centers = CellCenters((6 / 16,), (2 / 16,))  # cells of two pixels: 5 and 6, 7 and 8, 9 and 10
    maps = torch.tensor([[1.0, 2.0, 3.0]])
    shown = resize(maps, (16,), "nearest", centers)[0].tolist()
    assert shown == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 0, 0, 0]


def test_resize_at_centers_moves_nothing_off_the_device():
    maps = torch.rand(1, 3, 3, device="meta")
    centers = CellCenters((0.2, 0.2), (0.2, 0.2))
    for interpolation in ("bilinear", "nearest", "bicubic"):
        assert resize(maps, (9, 9), interpolation, centers).device.type == "meta"


def test_centers_of_a_flipped_grid_equal_the_flipped_map():
    maps, centers = torch.rand(1, 5), CellCenters((0.3,), (0.1,))
    flipped = CellCenters((0.3 + 0.4,), (-0.1,))
    assert torch.allclose(resize(maps.flip(1), (32,), centers=flipped), resize(maps, (32,), centers=centers), atol=1e-5)


def test_average_with_mirrored_centers_equals_the_mean_of_both():
    width, centers = 40, CellCenters((0.0, 2.5 / 40), (1.0, 6 / 40))
    mirrored = [width - 1 - (2 + 6 * (4 - i)) for i in range(5)]  # of pixel centers 2, 8, 14, 20, 26
    averaged = centers.average_with_mirrored(-1, 5)
    expected = [(2 + 6 * i + mirrored[i]) / 2 for i in range(5)]
    assert [(averaged.offset[1] + averaged.step[1] * i) * width - 0.5 for i in range(5)] == pytest.approx(expected)
    assert averaged.offset[0] == 0


def test_even_stretch_has_no_shift_and_fades_nowhere():
    for grid, size in (((7, 5), (224, 64)), ((3,), (100,))):
        assert CellCenters.spread(grid).measure_shift(grid, size) == pytest.approx(0, abs=1e-9)
    ones = torch.ones(1, 4, 4)
    assert torch.allclose(resize(ones, (16, 16), centers=CellCenters.spread((4, 4))), F.interpolate(ones[None], 16)[0])
