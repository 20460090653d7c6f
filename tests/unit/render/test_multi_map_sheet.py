"""Several methods in one figure, of photos, signals and volumes."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import Probe, Variant
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.methods import EQUATIONS
from lightning_gradcam.methods.resolve import coerce_methods
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.render.arrangement import GAP, SEAM, WIDTH
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.multi_map_sheet import MapRow, draw_rows
from lightning_gradcam.targets import TARGETS
from tests.helpers.canvases import make_sheet
from tests.helpers.device_waits import Waits
from tests.helpers.lit import BODIES, Bars, Lit, bodies
from tests.helpers.models import find, perturbed, read, read_footer

EVERY = [*EQUATIONS, Variant("layercam", "abs", "principal")]


def watched(count=5, methods=EVERY, **display):
    data = Bars(count)
    probe = Probe(torch.stack([data[i][0] for i in range(count)]), labels=data.labels)
    torch.manual_seed(0)
    model = perturbed(Lit())
    plan = prepare(model, probe, target=TARGETS["label"], layers=["features"], method=methods)
    return ProbeMonitor(
        probe, ShardedExplainer(plan), TARGETS["label"], DisplayConfig(**display), class_names=Bars.classes
    ), model


@pytest.mark.parametrize("count", [1, 5, 11, 16])
def test_overlays_are_below_their_photo_with_method_names(count):
    watch, model = watched(count)
    look = watch.take_snapshot(model, "start")
    assert list(look.figures) == ["features"]
    figure, sheet = look.figures["features"], watch.figures.sheet
    assert figure.shape[2] <= WIDTH
    height, line = sheet.image_tiles.shape[-2], sheet.font.height
    for i in {0, count - 1}:
        [(y, x)] = find(figure, sheet.image_tiles[i])
        for row, name in enumerate(coerce_methods(EVERY)):
            explanation, key = look.explanation, f"features/{name}"
            tile = sheet.draw_overlays(explanation.evidence[key], explanation.map_status[key])[i]
            top = y + height + SEAM + line + row * (height + SEAM + line)
            assert torch.equal(figure[:, top : top + height, x : x + tile.shape[2]], tile)
            strip = figure[:, top - line : top, GAP : GAP + 45 * sheet.font.width]
            assert read(sheet.font, strip, INK, PAPER).rstrip() == name


@pytest.mark.parametrize("scale", ["image", "shared", 0.5])
def test_drawing_rows_does_not_wait_for_the_device(scale):
    watch, model = watched(scale=scale)
    watch.take_snapshot(model, "start")
    with Waits() as waits:
        watch.take_snapshot(model, "epoch 1")
    assert waits.seen == []


@pytest.mark.parametrize("methods", [["gradcam"], ["gradcam", "layercam"]])
def test_sheet_and_film_use_the_interpolation(methods):
    drawn = {}
    for interpolation in ("bilinear", "nearest", "bicubic"):
        watch, model = watched(methods=methods, interpolation=interpolation)
        watch.take_snapshot(model, "start")
        drawn[interpolation] = watch.take_snapshot(model, "now").figures["features"], watch.draw_film()
    for one, other in (("bilinear", "nearest"), ("nearest", "bicubic"), ("bicubic", "bilinear")):
        assert not any(torch.equal(a, b) for a, b in zip(drawn[one], drawn[other], strict=True))


def test_film_and_resumed_run_use_the_first_method():
    watch, model = watched(methods=["layercam", "gradcam"], film=2, scale="shared")
    watch.take_snapshot(model, "start")
    look = watch.take_snapshot(model, "epoch 1")
    assert torch.equal(watch.figures.film.frames[-1].evidence, look.explanation.evidence["features/layercam"])
    assert set(look.numbers) >= {"drift", "drift/features/gradcam"}
    assert watch.draw_film() is not None
    other, _ = watched(methods=["layercam", "gradcam"], film=2, scale="shared")
    other.load_state_dict(watch.state_dict())
    assert torch.equal(
        other.take_snapshot(model, "now").figures["features"], watch.take_snapshot(model, "now").figures["features"]
    )


def test_rows_of_signals_include_their_curves():
    images, labels, _ = bodies(4, 1)
    probe, model, methods = Probe(images, labels=labels), perturbed(BODIES[1]()), ["gradcam", "layercam"]
    plan = prepare(model, probe, target=TARGETS["label"], method=methods)
    watch = ProbeMonitor(probe, ShardedExplainer(plan), TARGETS["label"], DisplayConfig())
    look = watch.take_snapshot(model, "start")
    [(layer, figure)], sheet = look.figures.items(), watch.figures.sheet
    for i in range(4):
        [(y, x)] = find(figure, sheet.image_tiles[i])
        top = y + sheet.image_tiles.shape[-2]
        for method in methods:
            key = f"{layer}/{method}"
            tile = sheet.draw_overlays(look.explanation.evidence[key], look.explanation.map_status[key])[i]
            top += SEAM + sheet.font.height
            assert torch.equal(figure[:, top : top + tile.shape[1], x : x + tile.shape[2]], tile)
            top += tile.shape[1]


def test_all_methods_select_the_slices_of_a_volume():
    volumes, loud, faint = torch.randint(0, 256, (1, 1, 12, 20, 20)) / 255, *torch.zeros(2, 1, 12, 5, 5)
    loud[0, 0], loud[0, 1], faint[0, 10] = 9e6, 8e6, 3e-6
    loud[0, 3], loud[0, 4] = 1e3, 1e3  # more than all that the faint one has
    names = ["loud", "faint"]
    sheet = make_sheet(volumes)
    rows = [MapRow(name, evidence, find_status(evidence)) for name, evidence in zip(names, (loud, faint), strict=True)]
    figure = draw_rows(sheet, rows, torch.eye(3)[:1], Heading("t"))
    side = sheet.canvas.style.size[0]
    large = volumes.mul(255).round().byte().repeat_interleave(side // 20, 3).repeat_interleave(side // 20, 4)
    at = [find(figure, large[0, :, z].expand(3, -1, -1)) for z in range(12)]
    assert [z for z in range(12) if at[z]] == [0, 1, 10]
    [(y, x)] = at[10]
    below = figure[:, y + side : y + side + sheet.font.height, x : x + side]
    assert read(sheet.font, below, INK, PAPER).split()[-3:] == ["11", "of", "12"]
    tiles = sheet.image_tiles.shape[-2] + SEAM
    overlays = [figure[:, y + tiles + i * (side + SEAM) :, x : x + side][:, :side].float() for i in range(2)]
    color = [float((tile[0] - tile[2]).abs().max()) for tile in overlays]
    assert color[0] < 2  # the loud one has nothing here
    assert color[1] > 60
    foot = read_footer(sheet.font, figure)
    assert "the slices with the most evidence" in foot
    assert "at the end" not in foot  # as the film says
