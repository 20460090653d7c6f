"""Pictures of signals, read back from their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional as F

from lightning_gradcam.explainer.map_status import MapStatus, find_status
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.colors import BAR, INK, PAPER, ColorTable, lay_over
from lightning_gradcam.render.photos import SEAM
from lightning_gradcam.render.signals import draw_lines
from tests.helpers.canvases import explained, sheet_of
from tests.helpers.models import examples, read


def range_in_columns(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Slow replica: the lowest and highest value of the line over each column of pixels."""
    at = (np.arange(len(values)) + 0.5) / len(values) * width
    inside = [np.r_[np.linspace(x, x + 1, 50), at[(at >= x) & (at <= x + 1)]] for x in range(width)]
    found = [np.interp(x, at, values) for x in inside]
    return np.array([f.min() for f in found]), np.array([f.max() for f in found])


@examples(80)
@given(st.integers(1, 300), st.integers(30, 120), st.integers(1, 4), st.integers(0, 99))
def test_lines_cover_what_lies_between_two_values(length, width, channels, seed):
    values = torch.rand(1, channels, length, generator=torch.Generator().manual_seed(seed))
    lane = 40
    height = lane * channels + channels - 1  # what lanes leave over
    covered = draw_lines(values, (height, width))[0]
    assert covered.shape == (height, width)
    for channel in range(channels):
        rows = covered[lane * channel : lane * (channel + 1)]
        low, high = map(torch.from_numpy, range_in_columns(values[0, channel].double().numpy(), width))
        # A third of a pixel in time, along the steepest line, and one in height.
        slack = 36 * min(length / width / 3, 1) + 1.05
        heights = lane - torch.arange(lane)[:, None] - 0.5
        top = torch.where(rows > 0.5, heights, 0).amax(0)
        bottom = torch.where(rows > 0.5, heights, lane).amin(0)
        span = lane - 4.6
        assert ((top - (2.3 + 0.65 + high * span)).abs() <= slack).all()
        assert ((bottom - (2.3 - 0.65 + low * span)).abs() <= slack).all()
        dark = F.pad((rows > 0.5).int(), (0, 0, 1, 1))
        assert (dark.diff(dim=0).abs().sum(0) <= 2).all()  # one piece
        assert (top[1:] >= bottom[:-1] - 1).all()  # that touches its neighbours
        assert (bottom[1:] <= top[:-1] + 1).all()


@pytest.mark.parametrize("length", [5, 40, 64, 100, 250, 700, 5000])
@pytest.mark.parametrize("kind", ["line", "shades"])
def test_a_spike_keeps_its_height_and_stands_over_its_evidence(length, kind):
    at = length // 3
    channels = 1 if kind == "line" else 6
    signals = torch.zeros(1, channels, length)
    signals[..., at] = 1
    sheet = sheet_of(signals)
    width = sheet.photos.shape[-1]
    dark = -sheet.photos[0, 0].float() if kind == "line" else sheet.photos[0, 0].float()
    top = dark[:4].amax(0)
    wide, columns = width / length, torch.arange(width) + 0.5
    assert float(columns[top >= top.max() - 9].mean()) == pytest.approx((at + 0.5) * wide, abs=1)
    assert top.max() > dark.min() + (100 if kind == "line" or length < 2 * width else 5)
    heat = sheet.overlays(torch.eye(length)[at : at + 1], torch.zeros(1))[0]
    area = (heat[:, sheet.photos.shape[2] + SEAM :] != PAPER[0]).any(0)[:-1].sum(0)
    if length <= width:
        assert float((columns * area).sum() / area.sum()) == pytest.approx((at + 0.5) * wide, abs=1)


@pytest.mark.parametrize("scale", [None, torch.tensor(2.0)])
def test_colour_and_curve_say_what_explain_says(scale):
    signals, evidence = torch.zeros(3, 1, 96), torch.randn(3, 12)
    evidence[1] *= 0.1
    sheet = sheet_of(signals)
    height, width = sheet.photos.shape[2:]
    heat = explained(evidence, (width,), scale)
    tiles = sheet.overlays(evidence, find_status(evidence), scale)
    expected = lay_over(torch.full((3, 1, 1, width), BAR), heat[:, None], ColorTable.named("inferno"))
    assert torch.equal(tiles[:, :, 2:3], expected)  # above the line, which lies in the middle
    assert torch.equal(tiles[:, :, height - 3 : height - 2], expected)
    curve = tiles[:, :, height + SEAM :].float()
    bar = expected[:, :, 0].float()
    for i in range(3):
        for x in range(0, width, 7):
            column = curve[i, :, :-1, x]
            covered = (column - PAPER[0]).abs().sum(0) / (bar[i, :, x] - PAPER[0]).abs().sum()
            assert float(covered.sum()) == pytest.approx(float(heat[i, x]) * (curve.shape[2] - 1), abs=0.15)
            assert (covered.diff() >= -0.02).all()  # it stands on the ground
    assert (curve[:, :, -1] < 130).all()  # which is there also without evidence


def test_a_degenerate_signal_carries_the_word_below_it():
    signals = torch.rand(len(MapStatus), 1, 64)
    sheet = sheet_of(signals)
    height = sheet.photos.shape[-2]
    tiles = sheet.overlays(torch.rand(len(MapStatus), 8), torch.arange(len(MapStatus), dtype=torch.uint8))
    for tile, word in zip(tiles[1:], [s.text for s in MapStatus][1:], strict=True):
        top = sheet.canvas.words - sheet.font.height // 2
        assert height + SEAM <= top <= tile.shape[1] - sheet.font.height
        assert read(sheet.font, tile[:, top : top + sheet.font.height], PAPER, INK).strip() == word
        assert torch.equal(tile[0, :height], tile[2, :height])  # the signal stays, in grey
    assert not torch.equal(tiles[0, 0], tiles[0, 2])


def test_how_signals_are_scaled():
    signals = torch.stack([torch.randn(4, 30), 50 + 9 * torch.randn(4, 30), torch.full((4, 30), 3.0)], 1)
    signals[0, 0, 0], signals[1, 1, 1] = torch.nan, torch.inf
    shown, note = restore_images(signals, Normalization((0.5,), (0.2,)))
    clean = signals.nan_to_num(0, 0, 0)
    for channel in range(2):
        low, high = clean[:, channel].min(), clean[:, channel].max()
        torch.testing.assert_close(shown[:, channel], (clean[:, channel] - low) / (high - low))
    assert (shown[:, 2] == 0.5).all()
    assert note.startswith("signals as lines; each channel from its lowest")
    assert "rows of shades" in restore_images(torch.rand(2, 5, 30))[1]
