"""Filmstrip of a run: the snapshots it stores and draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, strategies as st

from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import GAP, WIDTH
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.font import Font
from tests.helpers.models import examples, find, read

NAMES = ["pine", "oak", "birch"]


def frame(name: str, evidence: torch.Tensor, logits: torch.Tensor) -> Frame:
    return Frame(name, evidence, find_status(evidence), logits)


@examples(150)
@given(st.integers(2, 8), st.integers(1, 70))
def test_film_thins_out_snapshots_evenly(length, count):
    film, blank = Film(length), (torch.ones(1, 2, 2), torch.zeros(1), torch.zeros(1, 2))
    for look in range(count):
        film.add(Frame(str(look), *blank))
        held = [int(f.name) for f in film.frames]
        assert held == sorted(set(held))
        assert (held[0], held[-1]) == (0, look)
        assert len(held) <= 2 * length
        gaps = [b - a for a, b in itertools.pairwise(held)]
        assert len(set(gaps[:-1])) <= 1  # even, but for the latest
        assert all(gaps[-1] <= gap for gap in gaps[:-1])
        assert len(held) >= min(look + 1, length)  # and no thinner than that
        shown = [int(f.name) for f in film.select_frames()]
        assert (shown[0], shown[-1]) == (0, look)
        assert len(shown) == min(length, len(held))
        assert set(shown) <= set(held)
        between = [b - a for a, b in itertools.pairwise(shown)][:-1]
        assert not between or max(between) <= 2 * min(between) + (gaps or [1])[0]


def run(looks: int, count: int, labels: torch.Tensor | None, size: tuple[int, int] = (16, 16)):
    film, photos = Film(length=4), torch.randint(0, 256, (count, 3, *size)) / 255
    for look in range(looks):
        evidence = (look + 1.0) * torch.linspace(0, 1, 16).reshape(1, 4, 4).repeat(count, 1, 1)
        film.add(frame(f"epoch {look}", evidence, torch.eye(3)[torch.arange(count) % 3] * 9.0 * look))
    return film, Probe(photos, labels=labels), photos


@pytest.mark.parametrize("scale", [None, torch.tensor(3.0)])
def test_film_draws_snapshots_as_columns(scale):
    film, probe, photos = run(3, 4, torch.tensor([0, 1, 2, 0]))
    figure = film.draw(probe, photos, NAMES, "inferno", title="run", scale=scale)
    assert figure.shape[2] == WIDTH
    # Four columns of (564 - 4) / 4 - 4 = 136 pixels; 16 pixels become 128.
    exact = (photos * 255).round().byte().repeat_interleave(8, 2).repeat_interleave(8, 3)
    places = [find(figure, photo) for photo in exact]
    assert [len(place) for place in places] == [1] * 4
    left = {place[0][1] for place in places}
    assert len(left) == 1  # one column
    assert sorted(place[0] for place in places) == [place[0] for place in places]
    font, x, y = Font.load(NAMES), left.pop(), places[0][0][0]
    over = figure[:, y - GAP - font.height : y - GAP, GAP:]
    for column, name in enumerate(["image", "epoch 0", "epoch 1", "epoch 2"]):
        start = column * 140
        assert read(font, over[:, :, start : start + 140], INK, PAPER).strip() == name
    overlays = [figure[:, y : y + 128, x + c * 140 :][:, :, :128].float() for c in (1, 2, 3)]
    if scale is not None:  # evidence grows from look to look
        assert (overlays[0][0] - overlays[0][2]).abs().mean() < (overlays[2][0] - overlays[2][2]).abs().mean()
    else:
        assert torch.equal(overlays[0], overlays[2])


def test_film_draws_eight_images_of_all_classes():
    labels = torch.tensor([0] * 12 + [1] + [2] * 3)
    film, probe, photos = run(2, 16, labels)
    figure = film.draw(probe, photos, NAMES, "inferno", title="run", scale=None)
    # Three columns of (564 - 4) // 3 - 4 = 182 pixels; 16 pixels become 176.
    exact = (photos * 255).round().byte().repeat_interleave(11, 2).repeat_interleave(11, 3)
    found = [i for i, photo in enumerate(exact) if find(figure, photo)]
    assert len(found) == 8
    assert {12, 13, 14, 15} <= set(found)


def test_film_of_eight_snapshots_has_two_strips():
    film, probe, photos = run(8, 2, torch.tensor([0, 1]))
    film.length = 8
    figure = film.draw(probe, photos, NAMES, "inferno", title="run", scale=None)
    # Five columns of (564 - 4) // 5 - 4 = 108 pixels; 16 pixels become 96.
    exact = (photos * 255).round().byte().repeat_interleave(6, 2).repeat_interleave(6, 3)
    font, names = Font.load(NAMES), [frame.name for frame in film.select_frames()]
    assert len(names) == 8
    for strip, (y, _) in enumerate(find(figure, exact[0])):
        over = figure[:, y - GAP - font.height : y - GAP, GAP:]
        columns = [read(font, over[:, :, i * 112 : i * 112 + 108], INK, PAPER).strip() for i in range(5)]
        assert columns == ["image", *names[4 * strip : 4 * strip + 4]]
    assert len(find(figure, exact[0])) == len(find(figure, exact[1])) == 2


@pytest.mark.parametrize("size", [(28, 28), (224, 224), (32, 512), (512, 32)])
@pytest.mark.parametrize(("looks", "labels"), [(1, None), (9, None), (9, torch.tensor([0, 7, 1]))])
def test_films_of_any_size_fit_the_width(size, looks, labels):
    film, probe, photos = run(looks, 3, labels, size)
    names = ["a very long name of a class " * 3, "b", *map(str, range(8))]
    figure = film.draw(probe, photos, names, "viridis", title="run " * 80, scale=torch.tensor(2.0))
    assert figure.shape[2] == WIDTH
    assert figure.float().std() > 5
    if size == (28, 28):  # long names leave room for photos
        factor = 9 if looks == 1 else 3
        assert find(figure, (photos[0] * 255).round().byte().repeat_interleave(factor, 1).repeat_interleave(factor, 2))
