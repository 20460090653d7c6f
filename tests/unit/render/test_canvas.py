"""Pictures of images of one, two and three dimensions: what holds for all."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.captions import GAP
from lightning_gradcam.render.colors import PAPER
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.sheet import WIDTH, arrange
from tests.helpers.canvases import NAMES, drawn, sheet_of

SHAPES = [(1, 3), (2, 50), (4, 4000), (9, 60), (300, 20), (1, 1, 8, 8), (3, 2, 30, 20), (1, 200, 5, 60), (2, 40, 32, 9)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 3, 16])
def test_every_shape_and_count_fits(shape, count):
    images, evidence = torch.randn(count, *shape), torch.randn(count, *(3,) * (len(shape) - 1))
    sheet, film = sheet_of(images), Film(8)
    picture = drawn(sheet, evidence, facts=["facts " * 40], scale=torch.tensor(1e-20))
    for look in range(9):
        film.add(
            Frame(f"epoch {look}", evidence, torch.arange(count) % len(MapStatus), torch.zeros(count, 3 * (look % 2)))
        )
    photos, _ = restore_images(images)
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


def test_views_of_one_image_share_a_column():
    assert arrange(16, (32, 32), 3) == (4, (64, 64), 3)
    assert arrange(16, (100, 100), 3) == (4, (82, 82), 3)  # 3 * 82 and two seams make 250 of at most 251
