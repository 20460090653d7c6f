"""Figures of volumes, read back from their pixels, and the slices they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import GAP, SEAM
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.colors import INK, PAPER, ColorTable, blend_heatmaps
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.volumes import choose_slices
from tests.helpers.canvases import NAMES, compute_heatmaps, draw_sheet, make_sheet
from tests.helpers.models import examples, find, read


def replica_of_choice(evidence: np.ndarray, depth: int, count: int) -> list[int]:
    """Return the middle slices of the layers of cells with the most evidence, the middle of the volume first."""
    layers = [float(np.maximum(np.nan_to_num(layer, nan=0, posinf=0, neginf=0), 0).sum()) for layer in evidence]
    cells = len(layers)
    order = sorted(range(cells), key=lambda c: (-layers[c], abs(2 * c - cells + 1), c))
    return sorted(int((c + 0.5) * depth / cells) for c in order[:count])


@examples(80)
@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 3), st.integers(0, 99))
def test_choose_slices_equals_a_replica(cells, more, count, seed):
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
@given(st.integers(1, 6), st.sampled_from([1, 3, 5, 7]), st.sampled_from([2, 4, 6]), st.integers(0, 99))
def test_first_slice_is_the_best_of_the_enlarged_map(cells, odd, even, seed):
    """Enlarged by an odd factor, each layer of cells has a slice at its center, where interpolation has its maxima."""
    evidence = torch.randn(3, cells, 2, 2, generator=torch.Generator().manual_seed(seed))
    sums = compute_heatmaps(evidence, (cells * odd, 4, 4), torch.tensor(100.0)).sum((2, 3))
    best = choose_slices(evidence, cells * odd, 1)
    torch.testing.assert_close(sums.gather(1, best)[:, 0], sums.amax(1))
    assert torch.equal(choose_slices(evidence, cells * even, 1) // even, best // odd)


def test_choose_slices_of_maps_of_any_depth():
    evidence = torch.tensor([[1.0, 3.0], [3.0, 1.0]]).reshape(2, 2, 1, 1)
    assert choose_slices(evidence, 12, 3).tolist() == [[2, 6, 10], [2, 6, 10]]
    assert choose_slices(evidence[:, :1], 9, 1).tolist() == [[4], [4]]
    assert choose_slices(torch.eye(8)[[7, 0]].reshape(2, 8, 1, 1), 4, 1).tolist() == [[3], [0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_of_volumes_shows_the_chosen_slices(channels):
    volumes, evidence = torch.randint(0, 256, (3, channels, 12, 20, 24)) / 255, torch.randn(3, 6, 5, 4)
    chosen = choose_slices(evidence, 12, 3)
    sheet = make_sheet(volumes)
    factor = sheet.canvas.style.size[1] // 24
    assert factor > 1
    figure = draw_sheet(sheet, evidence)
    heat = compute_heatmaps(evidence, (12, 20 * factor, 24 * factor))
    for i, slices in enumerate(chosen.tolist()):
        for z in slices:
            photo = large(volumes[i : i + 1], factor)[0, :, z]
            [(y, x)] = find(figure, photo)
            below = figure[:, y + 20 * factor : y + 20 * factor + sheet.font.height, x : x + 24 * factor]
            assert read(sheet.font, below, INK, PAPER).strip() == f"{z + 1}/12"  # the slice is 72 pixels wide
            luma = (photo / 255 * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
            expected = blend_heatmaps(luma[None, None], heat[i : i + 1, z], ColorTable.from_colormap("inferno"))[0]
            top = y + 20 * factor + sheet.font.height + SEAM
            tile = figure[:, top : top + 20 * factor, x : x + 24 * factor]
            assert (tile.int() - expected.int()).abs().max() <= 1


def large(volumes: Tensor, factor: int) -> Tensor:
    shown = (volumes * 255).round().byte().expand(-1, 3, -1, -1, -1)
    return shown.repeat_interleave(factor, 3).repeat_interleave(factor, 4)


def test_slices_change_between_snapshots_but_not_in_film():
    volumes = torch.randint(0, 256, (2, 1, 12, 20, 20)) / 255
    sheet, film = make_sheet(volumes), Film(4)
    frames = [torch.zeros(2, 12, 5, 5) for _ in range(3)]
    for look, evidence in enumerate(frames):
        evidence[:, 3 * look + 1] = 1
        evidence[1, 0] = look + 1.0  # the second one's stays
        film.add(Frame(f"epoch {look}", evidence, find_status(evidence), torch.eye(3)[:2] * look))
    enlarged = large(volumes, sheet.canvas.style.size[1] // 20)
    for look, evidence in enumerate(frames):
        assert find(draw_sheet(sheet, evidence), enlarged[0, :, 3 * look + 1])
    probe = Probe(volumes, labels=torch.tensor([0, 1]))
    photos, _ = restore_images(volumes)
    figure = film.draw(probe, photos, NAMES, "inferno", title="run", scale=None)
    enlarged = large(volumes, 6)
    film.frames = [Frame(f.name, f.evidence, f.map_status, f.logits[:, :0]) for f in film.frames]
    without = film.draw(probe, photos, NAMES, "inferno", title="run", scale=None)
    for row, z in ((0, 7), (1, 0)):
        [(y, x)] = find(without, enlarged[row, :, z])
        line = without[:, y + 120 : y + 120 + sheet.font.height, x : x + 120]
        assert read(sheet.font, line, INK, PAPER).split() == [str(z + 1), "of", "12"]  # also without captions
        [(y, x)] = find(figure, enlarged[row, :, z])
        line = figure[:, y + 120 : y + 120 + sheet.font.height, x : x + 120]
        assert read(sheet.font, line, INK, PAPER).split() == [str(z + 1), "of", "12"]
        for column in range(3):  # the same slice, and its evidence at that time
            left = x + (column + 1) * (136 + GAP)  # four columns, see `Film.draw`
            tile = figure[:, y : y + 120, left : left + 120].float()
            has_color = (tile[0] - tile[2]).abs().max() > 20
            assert has_color == bool(frames[column][row, z].any())
    assert not any(find(figure, enlarged[0, :, z]) for z in (1, 4))
