"""Pictures of signals and volumes, read back from their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import examples, find, read
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explanation import FLAWS, Explanation, flaws
from lightning_gradcam.probe import Pixels, Probe
from lightning_gradcam.render.canvas import restore
from lightning_gradcam.render.captions import GAP
from lightning_gradcam.render.colors import BAR, INK, PAPER, Ramp, overlay
from lightning_gradcam.render.film import Film, Frame
from lightning_gradcam.render.photos import SEAM
from lightning_gradcam.render.sheet import WIDTH, Sheet, arrange
from lightning_gradcam.render.signals import lines
from lightning_gradcam.render.volumes import choose_slices

NAMES = ["pine", "oak", "sailing boat on a lake"]


def sheet_of(images: Tensor, **kwargs) -> Sheet:
    photos, _ = restore(images)
    return Sheet.of(Probe(images, labels=torch.arange(len(images)) % 3), photos, NAMES, **kwargs)


def explained(evidence: Tensor, size: tuple[int, ...], scale: Tensor | None = None) -> Tensor:
    """Heatmaps as `explain` returns them."""
    found = Explanation({"a": evidence}, torch.zeros(len(evidence), 0), None, size, flaws={"a": flaws(evidence)})
    return found.heatmaps(scale=scale)["a"]


def drawn(sheet: Sheet, evidence: Tensor, **kwargs) -> Tensor:
    return sheet.draw(evidence, flaws(evidence), torch.eye(3)[torch.arange(len(evidence)) % 3], title="t", **kwargs)


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
    covered = lines(values, (height, width))[0]
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
    tiles = sheet.overlays(evidence, flaws(evidence), scale)
    expected = overlay(torch.full((3, 1, 1, width), BAR), heat[:, None], Ramp.named("inferno"))
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
    signals = torch.rand(len(FLAWS), 1, 64)
    sheet = sheet_of(signals)
    height = sheet.photos.shape[-2]
    tiles = sheet.overlays(torch.rand(len(FLAWS), 8), torch.arange(len(FLAWS), dtype=torch.uint8))
    for tile, word in zip(tiles[1:], FLAWS[1:], strict=True):
        top = sheet.canvas.words - sheet.font.height // 2
        assert height + SEAM <= top <= tile.shape[1] - sheet.font.height
        assert read(sheet.font, tile[:, top : top + sheet.font.height], PAPER, INK).strip() == word
        assert torch.equal(tile[0, :height], tile[2, :height])  # the signal stays, in grey
    assert not torch.equal(tiles[0, 0], tiles[0, 2])


def test_how_signals_are_scaled():
    signals = torch.stack([torch.randn(4, 30), 50 + 9 * torch.randn(4, 30), torch.full((4, 30), 3.0)], 1)
    signals[0, 0, 0], signals[1, 1, 1] = torch.nan, torch.inf
    shown, note = restore(signals, Pixels((0.5,), (0.2,)))
    clean = signals.nan_to_num(0, 0, 0)
    for channel in range(2):
        low, high = clean[:, channel].min(), clean[:, channel].max()
        torch.testing.assert_close(shown[:, channel], (clean[:, channel] - low) / (high - low))
    assert (shown[:, 2] == 0.5).all()
    assert note.startswith("signals as lines; each channel from its lowest")
    assert "rows of shades" in restore(torch.rand(2, 5, 30))[1]


def replica_of_choice(evidence: np.ndarray, depth: int, count: int) -> list[int]:
    """The middle slices of the layers of cells with the most evidence; the middle of the volume first among equals."""
    layers = [float(np.maximum(np.nan_to_num(layer, nan=0, posinf=0, neginf=0), 0).sum()) for layer in evidence]
    cells = len(layers)
    order = sorted(range(cells), key=lambda c: (-layers[c], abs(2 * c - cells + 1), c))
    return sorted(int((c + 0.5) * depth / cells) for c in order[:count])


@examples(80)
@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 3), st.integers(0, 99))
def test_slices_equal_a_replica(cells, more, count, seed):
    depth = cells + more
    generator = torch.Generator().manual_seed(seed)
    evidence = torch.randint(-3, 3, (4, cells, 2, 3), generator=generator).float()
    evidence[1], evidence[2, 0, 0, 0] = -1, torch.nan
    found = choose_slices(evidence, depth, min(count, depth))
    assert all(len(set(row)) == len(row) and row == sorted(row) for row in found.tolist())
    assert found.min() >= 0
    assert found.max() < depth
    if cells >= count:
        assert found.tolist() == [replica_of_choice(e.numpy(), depth, count) for e in evidence]


@examples(40)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 99))
def test_the_first_slice_is_the_best_of_the_enlarged_map_within_half_a_slice(cells, stride, seed):
    evidence = torch.randn(3, cells, 2, 2, generator=torch.Generator().manual_seed(seed))
    sums = explained(evidence, (cells * stride, 4, 4), torch.tensor(100.0)).sum((2, 3))
    best = choose_slices(evidence, cells * stride, 1)
    near = [sums.gather(1, (best - step).clamp_min(0)) for step in range(1 + (stride + 1) % 2)]
    torch.testing.assert_close(torch.cat(near, 1).amax(1), sums.amax(1))


def test_slices_of_maps_of_any_depth():
    evidence = torch.tensor([[1.0, 3.0], [3.0, 1.0]]).reshape(2, 2, 1, 1)
    assert choose_slices(evidence, 12, 3).tolist() == [[2, 6, 10], [2, 6, 10]]
    assert choose_slices(evidence[:, :1], 9, 1).tolist() == [[4], [4]]
    assert choose_slices(torch.eye(8)[[7, 0]].reshape(2, 8, 1, 1), 4, 1).tolist() == [[3], [0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_of_volumes_shows_the_chosen_slices_with_number_and_evidence(channels):
    volumes, evidence = torch.randint(0, 256, (3, channels, 12, 20, 24)) / 255, torch.randn(3, 6, 5, 4)
    chosen = choose_slices(evidence, 12, 3)
    sheet = sheet_of(volumes)
    factor = sheet.canvas.size[1] // 24
    assert factor > 1
    picture = drawn(sheet, evidence)
    heat = explained(evidence, (12, 20 * factor, 24 * factor))
    for i, slices in enumerate(chosen.tolist()):
        for z in slices:
            photo = large(volumes[i : i + 1], factor)[0, :, z]
            [(y, x)] = find(picture, photo)
            below = picture[:, y + 20 * factor : y + 20 * factor + sheet.font.height, x : x + 24 * factor]
            assert read(sheet.font, below, INK, PAPER).split() == [str(z + 1), "of", "12"]
            luma = (photo / 255 * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
            expected = overlay(0.1 + 0.75 * luma[None, None], heat[i : i + 1, z], Ramp.named("inferno"))[0]
            top = y + 20 * factor + sheet.font.height + SEAM
            tile = picture[:, top : top + 20 * factor, x : x + 24 * factor]
            assert (tile.int() - expected.int()).abs().max() <= 1


def large(volumes: Tensor, factor: int) -> Tensor:
    shown = (volumes * 255).round().byte().expand(-1, 3, -1, -1, -1)
    return shown.repeat_interleave(factor, 3).repeat_interleave(factor, 4)


def test_slices_change_from_look_to_look_but_not_in_the_film():
    volumes = torch.randint(0, 256, (2, 1, 12, 20, 20)) / 255
    sheet, film = sheet_of(volumes), Film(4)
    frames = [torch.zeros(2, 12, 5, 5) for _ in range(3)]
    for look, evidence in enumerate(frames):
        evidence[:, 3 * look + 1] = 1
        evidence[1, 0] = look + 1.0  # the second one's stays
        film.add(Frame(f"epoch {look}", evidence, flaws(evidence), torch.eye(3)[:2] * look))
    enlarged = large(volumes, sheet.canvas.size[1] // 20)
    for look, evidence in enumerate(frames):
        assert find(drawn(sheet, evidence), enlarged[0, :, 3 * look + 1])
    probe = Probe(volumes, labels=torch.tensor([0, 1]))
    photos, _ = restore(volumes)
    picture = film.draw(probe, photos, NAMES, "inferno", title="run", scale=None)
    enlarged = large(volumes, 6)
    for row, z in ((0, 7), (1, 0)):
        [(y, x)] = find(picture, enlarged[row, :, z])
        line = picture[:, y + 120 : y + 120 + sheet.font.height, x : x + 120]
        assert read(sheet.font, line, INK, PAPER).split() == ["slice", str(z + 1), "of", "12"]
        for column in range(3):  # the same slice, and its evidence at that time
            left = x + (column + 1) * (120 + GAP)
            tile = picture[:, y : y + 120, left : left + 120].float()
            has_colour = (tile[0] - tile[2]).abs().max() > 20
            assert has_colour == bool(frames[column][row, z].any())
    assert not any(find(picture, enlarged[0, :, z]) for z in (1, 4))


SHAPES = [(1, 3), (2, 50), (4, 4000), (9, 60), (300, 20), (1, 1, 8, 8), (3, 2, 30, 20), (1, 200, 5, 60), (2, 40, 32, 9)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 3, 16])
def test_every_shape_and_count_fits(shape, count):
    images, evidence = torch.randn(count, *shape), torch.randn(count, *(3,) * (len(shape) - 1))
    sheet, film = sheet_of(images), Film(8)
    picture = drawn(sheet, evidence, facts=["facts " * 40], scale=torch.tensor(1e-20))
    for look in range(9):
        film.add(Frame(f"epoch {look}", evidence, torch.arange(count) % len(FLAWS), torch.zeros(count, 3 * (look % 2))))
    photos, _ = restore(images)
    for labels in (None, torch.arange(count) % 3):
        shown = film.draw(Probe(images, labels=labels), photos, NAMES, "viridis", title="run", scale=torch.tensor(2.0))
        assert shown.shape[2] <= WIDTH
        assert shown.float().std() > 10
    assert picture.shape[2] <= WIDTH
    assert picture.dtype == torch.uint8
    assert picture.float().std() > 10


def test_the_foot_says_what_is_shown():
    for images, words in (
        (torch.rand(3, 1, 30), "colour and curve: evidence along the signal"),
        (torch.rand(3, 1, 9, 8, 8), "the slices with the most evidence"),
    ):
        sheet = sheet_of(images)
        wanted = sheet.font.draw(sheet.font.encode([words])[0])
        picture = drawn(sheet, torch.rand(3, *(4,) * (images.ndim - 2)))
        strip = (PAPER[0] - picture[0, -GAP - sheet.font.height : -GAP].float()) / (PAPER[0] - 115)
        places = range(strip.shape[1] - wanted.shape[1] + 1)
        assert any((strip[:, x : x + wanted.shape[1]] - wanted).abs().max() < 0.02 for x in places)
    assert arrange(16, (32, 32), 3) == (4, (64, 64))
