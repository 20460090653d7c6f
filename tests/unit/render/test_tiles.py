"""Assembly of tiles."""

from __future__ import annotations

import torch

from lightning_gradcam.render.arrangement import GAP
from lightning_gradcam.render.colors import PAPER
from lightning_gradcam.render.tiles import draw_grid, join_tiles, pad_to_height

LOW, HIGH = torch.full((2, 3, 4, 5), 1, dtype=torch.uint8), torch.full((2, 3, 6, 5), 2, dtype=torch.uint8)


def test_join_tiles_leaves_gaps_between_but_not_around():
    joined = join_tiles([LOW, LOW, LOW], 2, dim=3)
    assert joined.shape == (2, 3, 4, 19)
    assert joined[0, 0, 0].tolist() == ([1] * 5 + [PAPER[0]] * 2) * 2 + [1] * 5
    assert join_tiles([LOW, HIGH], 3, dim=2)[0, 0, :, 0].tolist() == [1] * 4 + [PAPER[0]] * 3 + [2] * 6


def test_pad_to_height_adds_background_at_the_bottom():
    low, high = pad_to_height([LOW, HIGH])
    assert low[0, 0, :, 0].tolist() == [1] * 4 + [PAPER[0]] * 2
    assert torch.equal(high, HIGH)


def test_draw_grid_pads_a_single_cell_too():
    assert draw_grid(LOW[:1], 1).shape == (3, 4 + 2 * GAP, 5 + 2 * GAP)
    assert draw_grid(LOW, 1).shape == (3, 8 + 3 * GAP, 5 + 2 * GAP)
