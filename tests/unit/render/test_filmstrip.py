"""The picture of a run: which looks it keeps, and what it shows of them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, strategies as st

from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.captions import GAP
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.font import Font
from tests.helpers.models import examples, find, read

NAMES = ["pine", "oak", "birch"]


def frame(name: str, evidence: torch.Tensor, logits: torch.Tensor) -> Frame:
    return Frame(name, evidence, find_status(evidence), logits)


@examples(150)
@given(st.integers(2, 8), st.integers(1, 70))
def test_looks_are_thinned_out_evenly(length, count):
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
        shown = [int(f.name) for f in film.shown()]
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
def test_looks_run_across_and_images_down(scale):
    film, probe, photos = run(3, 4, torch.tensor([0, 1, 2, 0]))
    picture = film.draw(probe, photos, NAMES, "inferno", title="run", scale=scale)
    assert picture.shape[2] <= 1024
    exact = (photos * 255).round().byte().repeat_interleave(8, 2).repeat_interleave(8, 3)  # 16 to 128 pixels
    places = [find(picture, photo) for photo in exact]
    assert [len(place) for place in places] == [1] * 4
    left = {place[0][1] for place in places}
    assert len(left) == 1  # one column
    assert sorted(place[0] for place in places) == [place[0] for place in places]
    font, x, y = Font.load(NAMES), left.pop(), places[0][0][0]
    over = picture[:, y - GAP - font.height : y - GAP]
    for column, name in enumerate(["image", "epoch 0", "epoch 1", "epoch 2"]):
        start = x + column * (128 + GAP)
        assert read(font, over[:, :, start : start + 18 * font.width], INK, PAPER).strip() == name
    overlays = [picture[:, y : y + 128, x + c * (128 + GAP) :][:, :, :128].float() for c in (1, 2, 3)]
    if scale is not None:  # evidence grows from look to look
        assert (overlays[0][0] - overlays[0][2]).abs().mean() < (overlays[2][0] - overlays[2][2]).abs().mean()
    else:
        assert torch.equal(overlays[0], overlays[2])


def test_ten_images_of_as_many_classes_as_there_are():
    labels = torch.tensor([0] * 12 + [1] + [2] * 3)
    film, probe, photos = run(2, 16, labels)
    picture = film.draw(probe, photos, NAMES, "inferno", title="run", scale=None)
    exact = (photos * 255).round().byte().repeat_interleave(8, 2).repeat_interleave(8, 3)
    found = [i for i, photo in enumerate(exact) if find(picture, photo)]
    assert len(found) == 10
    assert {12, 13, 14, 15} <= set(found)


@pytest.mark.parametrize("size", [(28, 28), (224, 224), (32, 512), (512, 32)])
@pytest.mark.parametrize(("looks", "labels"), [(1, None), (9, None), (9, torch.tensor([0, 7, 1]))])
def test_every_size_fits(size, looks, labels):
    film, probe, photos = run(looks, 3, labels, size)
    names = ["a very long name of a class " * 3, "b", *map(str, range(8))]
    picture = film.draw(probe, photos, names, "viridis", title="run " * 80, scale=torch.tensor(2.0))
    assert picture.shape[2] <= 1024
    assert picture.float().std() > 10
    if size == (28, 28):  # long names leave room for photos
        assert find(picture, (photos[0] * 255).round().byte().repeat_interleave(4, 1).repeat_interleave(4, 2))
