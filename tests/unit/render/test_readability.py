"""All figures can be read at the size at which TensorBoard shows them."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import PGD
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import GAP
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.font import Font
from lightning_gradcam.render.legend import Heading, wrap_parts
from lightning_gradcam.render.multi_map_sheet import MapRow, draw_rows
from tests.helpers.attacked_monitor import bars, watched
from tests.helpers.canvases import NAMES, draw_sheet, make_sheet
from tests.helpers.models import find, read_footer, read_paragraph

SHOWN_WIDTH = 350
"""Pixels of an image in TensorBoard's Images tab, measured in a browser."""

SIZES = {"photos": (3, 224, 224), "digits": (1, 28, 28), "signals": (2, 300), "volumes": (1, 24, 40, 40)}


def measure_letters(figure: torch.Tensor, font: Font) -> float:
    """Return the height of capital letters, in pixels of the screen; the figure must hold text of this font."""
    assert read_footer(font, figure).startswith("no evidence")
    [glyph] = font.glyphs[font.encode(["H"])[0]]
    rows = (glyph.amax(1) > 0.5).nonzero()
    return float(rows[-1] - rows[0] + 1) * SHOWN_WIDTH / figure.shape[2]


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("count", [1, 2, 16])
def test_letters_of_sheets_are_readable_and_all_images_are_there(kind, count):
    images = torch.rand(count, *SIZES[kind])
    sheet, evidence = make_sheet(images), torch.rand(count, *(4,) * (images.ndim - 2))
    figure = draw_sheet(sheet, evidence)
    assert measure_letters(figure, sheet.font) >= 9
    tiles = sheet.freeze_view(evidence).image_tiles
    assert all(find(figure, tile) for tile in tiles)
    rows = [MapRow(name, evidence, find_status(evidence)) for name in ("gradcam", "layercam")]
    figure = draw_rows(sheet, rows, torch.eye(3)[torch.arange(count) % 3], Heading("t"))
    assert measure_letters(figure, sheet.font) >= 9


@pytest.mark.parametrize("kind", SIZES)
def test_letters_of_the_film_are_readable(kind):
    images = torch.rand(16, *SIZES[kind])
    evidence = torch.rand(16, *(4,) * (images.ndim - 2))
    film = Film(DisplayConfig().film)
    for epoch in range(20):
        film.add(Frame(f"epoch {100 + epoch}", evidence, find_status(evidence), torch.eye(3)[torch.arange(16) % 3]))
    probe = Probe(images, labels=torch.arange(16) % 3)
    figure = film.draw(probe, restore_images(images)[0], NAMES, "inferno", title="run", scale=None)
    assert measure_letters(figure, Font.load(NAMES)) >= 9


def test_letters_of_attacked_images_are_readable():
    watch, model = watched(PGD(0.01, 1), probe=bars(16))
    figure = watch.take_snapshot(model, "start").figures["features"]
    sheet = watch.figures.attack_sheet.sheet
    assert measure_letters(figure, sheet.font) >= 9
    assert all(find(figure, tile) for tile in sheet.image_tiles)


@pytest.mark.parametrize("count", [1, 2, 16])
def test_head_lines_are_never_cut(count):
    sheet = make_sheet(torch.rand(count, 3, 28, 28))
    title = "encoder.layers.encoder_layer_11.self_attention.out_proj · 14×14 · 2 methods, each of the label"
    facts = ["epoch 100 · step 123456", " · drift ", sheet.font.encode_number(torch.tensor(0.5), 1, 2), " ± 0.10"]
    figure = draw_sheet(sheet, torch.rand(count, 4, 4), Heading(title, facts))
    lines = len(wrap_parts([title], sheet.bold, (figure.shape[2] - 2 * GAP) // sheet.bold.width))
    assert lines > 1
    found = read_paragraph(sheet.bold, figure, GAP)
    for separator in " ·":  # a separator at the end of a line is left out
        found, title = found.replace(separator, ""), title.replace(separator, "")
    assert found == title
    below = read_paragraph(sheet.font, figure, GAP + lines * sheet.bold.height)
    assert below == "epoch 100 · step 123456 · drift 0.50 ± 0.10"
