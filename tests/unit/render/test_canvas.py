"""Figures of images of one, two and three dimensions."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import WIDTH, arrange
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.legend import Heading
from tests.helpers.canvases import NAMES, draw_sheet, make_sheet
from tests.helpers.models import read_footer

SHAPES = [(1, 3), (2, 50), (4, 4000), (9, 60), (300, 20), (1, 1, 8, 8), (3, 2, 30, 20), (1, 200, 5, 60), (2, 40, 32, 9)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 3, 16])
def test_figures_of_any_shape_and_count_fit_the_width(shape, count):
    images, evidence = torch.randn(count, *shape), torch.randn(count, *(3,) * (len(shape) - 1))
    sheet, film = make_sheet(images), Film(8)
    figure = draw_sheet(sheet, evidence, Heading("t", ["facts " * 40]), scale=torch.tensor(1e-20))
    for look in range(9):
        film.add(
            Frame(f"epoch {look}", evidence, torch.arange(count) % len(MapStatus), torch.zeros(count, 3 * (look % 2)))
        )
    photos, _ = restore_images(images)
    for labels in (None, torch.arange(count) % 3):
        shown = film.draw(Probe(images, labels=labels), photos, NAMES, "viridis", title="run", scale=torch.tensor(2.0))
        assert shown.shape[2] <= WIDTH
        assert shown.float().std() > 10
    assert figure.shape[2] <= WIDTH
    assert figure.dtype == torch.uint8
    assert figure.float().std() > 10


def test_footer_describes_the_canvas():
    for images, words in (
        (torch.rand(3, 1, 30), "color and curve: evidence along the signal"),
        (torch.rand(3, 1, 9, 8, 8), "the slices with the most evidence"),
    ):
        sheet = make_sheet(images)
        assert words in read_footer(sheet.font, draw_sheet(sheet, torch.rand(3, *(4,) * (images.ndim - 2))))


def test_arrange_puts_views_of_an_image_in_one_column():
    # Two columns, of (564 - 4) / 2 - 4 pixels; 3 * 64 fit, and their pixels stay square.
    assert arrange(16, (32, 32), 3) == (2, (64, 64), 3, 276)
    assert arrange(16, (100, 100), 3) == (2, (90, 90), 3, 276)  # 3 * 90 and two seams make 274 of at most 276
