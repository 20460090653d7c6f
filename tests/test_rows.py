"""Several methods side by side in one picture of a look."""

from __future__ import annotations

import pytest
import torch
from lit import Bars, Lit
from models import find, perturbed, read
from test_watch import Waits

from lightning_gradcam import Probe, Variant
from lightning_gradcam.evidence import coerce_methods
from lightning_gradcam.gallery import Display
from lightning_gradcam.methods import EQUATIONS
from lightning_gradcam.pipeline import prepare
from lightning_gradcam.portions import Portions
from lightning_gradcam.render.captions import GAP
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.sheet import WIDTH
from lightning_gradcam.targets import TARGETS
from lightning_gradcam.watch import Watch

EVERY = [*EQUATIONS, Variant("layercam", "abs", "principal")]


def watched(count=5, methods=EVERY, **display):
    data = Bars(count)
    probe = Probe(torch.stack([data[i][0] for i in range(count)]), labels=data.labels)
    torch.manual_seed(0)
    model = perturbed(Lit())
    plan = prepare(model, probe, target=TARGETS["label"], layers=["features"], method=methods)
    return Watch(probe, Portions(plan), TARGETS["label"], Display(names=Bars.classes, **display)), model


@pytest.mark.parametrize("count", [1, 5, 11, 16])
def test_each_overlay_stands_below_its_photo_beside_its_method(count):
    watch, model = watched(count)
    look = watch.look(model, "start")
    assert list(look.pictures) == ["features"]
    picture, sheet = look.pictures["features"], watch.gallery.sheet
    assert picture.shape[2] <= WIDTH
    height, line = sheet.photos.shape[-2], sheet.font.height
    for i in {0, count - 1}:
        [(y, x)] = find(picture, sheet.photos[i])
        for row, name in enumerate(coerce_methods(EVERY)):
            explanation, key = look.explanation, f"features/{name}"
            tile = sheet.overlays(explanation.evidence[key], explanation.flaws[key])[i]
            top = y + (row + 1) * (height + 2)
            assert torch.equal(picture[:, top : top + height, x : x + tile.shape[2]], tile)
            middle = top + (height - line) // 2
            strip = picture[:, middle : middle + line, GAP : GAP + 24 * sheet.font.width]
            said = read(sheet.font, strip, INK, PAPER).rstrip()
            assert said == (name if len(name) <= 24 else name[:23] + "…")


@pytest.mark.parametrize("scale", ["image", "shared", 0.5])
def test_all_methods_leave_the_device_as_the_finished_picture_only(scale):
    watch, model = watched(scale=scale)
    watch.look(model, "start")
    with Waits() as waits:
        watch.look(model, "epoch 1")
    assert waits.seen == []


@pytest.mark.parametrize("methods", [["gradcam"], ["gradcam", "layercam"]])
def test_pictures_and_film_are_enlarged_as_asked(methods):
    drawn = {}
    for interpolation in ("bilinear", "nearest", "bicubic"):
        watch, model = watched(methods=methods, interpolation=interpolation)
        watch.look(model, "start")
        drawn[interpolation] = watch.look(model, "now").pictures["features"], watch.draw_film()
    for one, other in (("bilinear", "nearest"), ("nearest", "bicubic"), ("bicubic", "bilinear")):
        assert not any(torch.equal(a, b) for a, b in zip(drawn[one], drawn[other], strict=True))


def test_the_film_and_a_resumed_run_follow_the_first_method():
    watch, model = watched(methods=["layercam", "gradcam"], film=2, scale="shared")
    watch.look(model, "start")
    look = watch.look(model, "epoch 1")
    assert torch.equal(watch.film.frames[-1].evidence, look.explanation.evidence["features/layercam"])
    assert set(look.numbers) >= {"drift", "drift/features/gradcam"}
    assert watch.draw_film() is not None
    other, _ = watched(methods=["layercam", "gradcam"], film=2, scale="shared")
    other.load_state_dict(watch.state_dict())
    assert torch.equal(other.look(model, "now").pictures["features"], watch.look(model, "now").pictures["features"])
