"""Methods at the pixels in the callback: figures, tags, files and refused arguments."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_gradcam import GradCAMCallback, GuidedBackprop, IntegratedGradients, Lime, SmoothGrad, explain
from lightning_gradcam.callback.compat import MisconfigurationException
from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.render.pixel_maps import PEAK_DESCRIPTION, PEAK_FRACTION, to_drawable
from tests.helpers.lit import CLASSES, Bars, Lit, fit
from tests.helpers.models import read_paragraph

FEW = [IntegratedGradients(4), SmoothGrad(2)]


def test_layer_and_pixel_methods_have_own_curves(tmp_path, read_events):
    callback = GradCAMCallback(probe=4, method=["gradcam", "guided_gradcam", *FEW], curves="all")
    fit(tmp_path, [callback], logger=TensorBoardLogger(tmp_path, name="run"))
    events = read_events(tmp_path / "run" / "version_0")
    layer = next(iter(callback.monitor.explainer.layers)).key
    assert set(events.Tags()["images"]) == {f"gradcam/{layer}", "gradcam/input_pixels", "gradcam/film"}
    last = callback.monitor.tracker.last
    drifts = {f"drift{end}" for end in ("", f"/{layer}/guided_gradcam", f"/{PIXELS}/integrated_gradients with steps 4")}
    assert drifts <= last.keys()
    assert all(value.isfinite() for value in last.values())
    assert "gradcam/drift/input_pixels/smoothgrad_with_samples_2" in events.Tags()["scalars"]


def test_pixel_method_writes_files(tmp_path):
    fit(tmp_path, [GradCAMCallback(probe=4, method="saliency")], logger=CSVLogger(tmp_path, name="run"))
    folders = {path.parent.name for path in tmp_path.rglob("step=*.png")}
    assert folders == {"input_pixels", "film"}
    [table] = tmp_path.rglob("metrics.csv")
    assert "gradcam/drift" in table.read_text().splitlines()[0]


def test_slow_method_is_refused_by_name_only(tmp_path):
    for name in ("lime", ["gradcam", "kernel_shap"]):
        with pytest.raises(
            MisconfigurationException, match=r"needs 500 forward passes per image.*(Lime|KernelShap)\(sa"
        ):
            GradCAMCallback(method=name)
    callback = GradCAMCallback(probe=2, method=Lime(8, segments=2))
    fit(tmp_path, [callback], max_epochs=1)
    assert list(callback.monitor.tracker.previous.maps) == [PIXELS]


def test_title_contains_the_neuron(tmp_path):
    callback = GradCAMCallback(probe=2, layers="features.4", method=GuidedBackprop((3, 2, 2)))
    fit(tmp_path, [callback], max_epochs=1)
    watch = callback.monitor
    assert watch.explainer.methods.keys() == {"guided_backprop of neuron 3 at 2, 2"}
    look = watch.take_snapshot(Lit(), "now")
    sheet, picture = watch.figures.sheet, look.figures["features.4"]
    from lightning_gradcam.render.arrangement import GAP

    assert "guided_backprop of neuron 3 at 2, 2" in read_paragraph(sheet.bold, picture, GAP)


def test_hot_pixel_does_not_hide_other_evidence():
    maps = torch.rand(3, 40, 40)
    maps[0, 5, 5] = 1e6
    shown = to_drawable(maps, (40, 40), (40, 40), per_image_scale=True)
    none = torch.zeros(3, dtype=torch.uint8)
    assert to_heatmaps(maps, none, (40, 40))[0].median() < 1e-3
    assert to_heatmaps(shown, none, (40, 40))[0].median() > 0.4
    cut = (shown < maps).flatten(1).sum(1)
    assert (cut == PEAK_FRACTION * 1600 - 1).all()  # the least of the strongest stays what it is
    assert torch.equal(to_drawable(maps, (40, 40), (40, 40), per_image_scale=False), maps)
    assert torch.equal(to_drawable(maps, (80, 80), (40, 40), per_image_scale=True), maps)  # a layer's
    lonely = torch.zeros(1, 40, 40)
    lonely[0, 3, 3] = 2.0
    assert torch.equal(to_drawable(lonely, (40, 40), (40, 40), per_image_scale=True), lonely)
    # Every pixel counts where a tile has room for a few only.
    checks = (torch.arange(40)[:, None] + torch.arange(40)) % 4 == 0
    small = to_drawable(checks.float()[None], (40, 40), (10, 10), per_image_scale=False)
    torch.testing.assert_close(small[0, 1:-1, 1:-1], torch.full((8, 8), 0.25), rtol=0.1, atol=0)


def test_footer_explains_the_last_color():
    from lightning_gradcam import Probe
    from lightning_gradcam.render.legend import Heading, draw_footer
    from lightning_gradcam.render.photos import restore_photos
    from lightning_gradcam.render.sheet import Sheet

    data = Bars(3)
    probe = Probe(torch.stack([data[i][0] for i in range(3)]), labels=data.labels)
    sheet = Sheet.from_probe(probe, restore_photos(probe.images)[0], CLASSES)
    found = explain(Lit().eval(), probe, method=["gradcam", "saliency"], layers="features.4")
    fine, coarse = found.evidence[f"{PIXELS}/saliency"], found.evidence["features.4/gradcam"]
    assert (sheet.describe_last_color(fine), sheet.describe_last_color(coarse)) == (PEAK_DESCRIPTION, "")
    picture = sheet.draw(fine, found.map_status[f"{PIXELS}/saliency"], found.logits, Heading("pixels"))
    said = draw_footer(
        sheet.canvas, sheet.font, picture.shape[-1], scale=None, has_marks=True, last_color=PEAK_DESCRIPTION
    )
    assert torch.equal(picture[:, -said.shape[1] :], said)
