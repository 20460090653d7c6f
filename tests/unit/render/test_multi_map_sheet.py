"""Several methods side by side in one picture of a look, of photos, signals and volumes."""

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
from lightning_gradcam.render.captions import GAP
from lightning_gradcam.render.colors import FAINT, INK, PAPER
from lightning_gradcam.render.multi_map_sheet import MapRow, arrange_with_names, draw_rows
from lightning_gradcam.render.photos import SEAM
from lightning_gradcam.render.sheet import WIDTH
from lightning_gradcam.targets import TARGETS
from tests.helpers.canvases import sheet_of
from tests.helpers.lit import BODIES, Bars, Lit, bodies
from tests.helpers.models import find, perturbed, read
from tests.unit.monitor.test_monitor import Waits

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
def test_each_overlay_stands_below_its_photo_beside_its_method(count):
    watch, model = watched(count)
    look = watch.take_snapshot(model, "start")
    assert list(look.figures) == ["features"]
    picture, sheet = look.figures["features"], watch.figures.sheet
    assert picture.shape[2] <= WIDTH
    height, line = sheet.photos.shape[-2], sheet.font.height
    for i in {0, count - 1}:
        [(y, x)] = find(picture, sheet.photos[i])
        for row, name in enumerate(coerce_methods(EVERY)):
            explanation, key = look.explanation, f"features/{name}"
            tile = sheet.overlays(explanation.evidence[key], explanation.map_status[key])[i]
            top = y + (row + 1) * (height + 2)
            assert torch.equal(picture[:, top : top + height, x : x + tile.shape[2]], tile)
            middle = top + (height - line) // 2
            strip = picture[:, middle : middle + line, GAP : GAP + 24 * sheet.font.width]
            said = read(sheet.font, strip, INK, PAPER).rstrip()
            assert said == (name if len(name) <= 24 else name[:23] + "…")


@pytest.mark.parametrize("scale", ["image", "shared", 0.5])
def test_all_methods_leave_the_device_as_the_finished_picture_only(scale):
    watch, model = watched(scale=scale)
    watch.take_snapshot(model, "start")
    with Waits() as waits:
        watch.take_snapshot(model, "epoch 1")
    assert waits.seen == []


@pytest.mark.parametrize("methods", [["gradcam"], ["gradcam", "layercam"]])
def test_pictures_and_film_are_enlarged_as_asked(methods):
    drawn = {}
    for interpolation in ("bilinear", "nearest", "bicubic"):
        watch, model = watched(methods=methods, interpolation=interpolation)
        watch.take_snapshot(model, "start")
        drawn[interpolation] = watch.take_snapshot(model, "now").figures["features"], watch.draw_film()
    for one, other in (("bilinear", "nearest"), ("nearest", "bicubic"), ("bicubic", "bilinear")):
        assert not any(torch.equal(a, b) for a, b in zip(drawn[one], drawn[other], strict=True))


def test_the_film_and_a_resumed_run_follow_the_first_method():
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


def test_signals_stand_over_their_curves():
    images, labels, _ = bodies(4, 1)
    probe, model, methods = Probe(images, labels=labels), perturbed(BODIES[1]()), ["gradcam", "layercam"]
    plan = prepare(model, probe, target=TARGETS["label"], method=methods)
    watch = ProbeMonitor(probe, ShardedExplainer(plan), TARGETS["label"], DisplayConfig())
    look = watch.take_snapshot(model, "start")
    [(layer, picture)], sheet = look.figures.items(), watch.figures.sheet
    for i in range(4):
        [(y, x)] = find(picture, sheet.photos[i])
        top = y + sheet.photos.shape[-2]
        for method in methods:
            key = f"{layer}/{method}"
            tile = sheet.overlays(look.explanation.evidence[key], look.explanation.map_status[key])[i]
            top += SEAM
            assert torch.equal(picture[:, top : top + tile.shape[1], x : x + tile.shape[2]], tile)
            top += tile.shape[1]


def test_what_is_shown_of_a_volume_is_what_all_methods_find():
    volumes, loud, faint = torch.randint(0, 256, (1, 1, 12, 20, 20)) / 255, *torch.zeros(2, 1, 12, 5, 5)
    loud[0, 0], loud[0, 1], faint[0, 10] = 9e6, 8e6, 3e-6
    loud[0, 3], loud[0, 4] = 1e3, 1e3  # more than all that the faint one has
    names = ["loud", "faint"]
    sheet = sheet_of(volumes, arrangement=arrange_with_names(names, volumes))
    rows = [MapRow(name, evidence, find_status(evidence)) for name, evidence in zip(names, (loud, faint), strict=True)]
    picture = draw_rows(sheet, rows, torch.eye(3)[:1], title="t")
    side = sheet.canvas.size[0]
    large = volumes.mul(255).round().byte().repeat_interleave(side // 20, 3).repeat_interleave(side // 20, 4)
    at = [find(picture, large[0, :, z].expand(3, -1, -1)) for z in range(12)]
    assert [z for z in range(12) if at[z]] == [0, 1, 10]
    [(y, x)] = at[10]
    below = picture[:, y + side : y + side + sheet.font.height, x : x + side]
    assert read(sheet.font, below, INK, PAPER).split()[-3:] == ["11", "of", "12"]
    tiles = sheet.photos.shape[-2] + SEAM
    overlays = [picture[:, y + tiles + i * (side + SEAM) :, x : x + side][:, :side].float() for i in range(2)]
    colour = [float((tile[0] - tile[2]).abs().max()) for tile in overlays]
    assert colour[0] < 2  # the loud one has nothing here
    assert colour[1] > 60
    bar = GAP + len("no evidence ") * sheet.font.width + 160
    foot = read(sheet.font, picture[:, -sheet.font.height - GAP : -GAP, bar:], FAINT, PAPER)
    assert "the slices with the most evidence" in foot
    assert "at the end" not in foot  # as the film says
