"""Segmentation while it trains: masks are found in batches, their class is explained, and its pixels are outlined."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_gradcam import GradCAMCallback, Probe, explain
from lightning_gradcam.monitor.figures import Caption
from lightning_gradcam.probe.batch import read_batch
from lightning_gradcam.render.sheet import draw_outline
from tests.helpers.lit import fit
from tests.regimes.dense import Masked, Segments, masked


def test_without_a_setting_the_labels_masks_are_explained_as_explain_does_and_named(tmp_path):
    callback, seen = GradCAMCallback(probe=6), {}

    class Compared(Segments):
        def on_train_end(self):
            seen["now"] = explain(self, callback.monitor.probe, target="label")

    fit(tmp_path, [callback], make=Compared, train=masked(12), val=masked(9, 1))
    watch = callback.monitor
    assert watch.target.name == "label"
    assert watch.probe.labels.shape == (6, 16, 16)
    assert watch.class_names == list(Masked.classes)
    found = seen["now"]
    assert torch.equal(watch.figures.film.frames[-1].evidence, next(iter(found.evidence.values())))
    held = [[(mask == c).sum() for c in range(1, 4)] for mask in watch.probe.labels]
    assert found.classes.tolist() == [1 + max(range(3), key=counts.__getitem__) for counts in held]
    caption = Caption("now", watch.tracker.measured, is_first=True)
    sheet = watch.figures.draw(found, caption, None)
    plain = watch.figures.draw(replace(found, region=None), caption, None)
    [key] = sheet
    assert sheet[key].shape[2] == plain[key].shape[2]
    assert sheet[key].ne(255).sum() != plain[key].ne(255).sum()


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 1, 8, 8)])
@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, torch.float32])
def test_masks_of_any_kind_are_found_in_batches(shape, kind):
    masks = (torch.rand(shape) > 0.5).to(kind)
    found = read_batch({"image": torch.rand(4, 3, 8, 8), "mask": masks})
    assert found.has_masks
    assert torch.equal(found.labels, masks.reshape(4, 8, 8).long())
    labelled = read_batch((torch.rand(4, 3, 8, 8), masks, torch.arange(4)))
    assert labelled.classes.tolist() == [0, 1, 2, 3]  # classes of images come first
    assert torch.equal(labelled.extras["1"], masks)


def test_what_is_no_mask_of_classes_is_none():
    images = torch.rand(4, 3, 8, 8)
    assert read_batch((images, torch.rand(4, 8, 8))).labels is None  # depths, say
    assert read_batch((images, torch.zeros(4, 4, 4).long())).labels is None  # of another size
    assert not Probe(torch.rand(4, 3, 8), labels=torch.zeros(4, 8).long()).has_masks


def test_the_outline_is_white_inside_and_black_beside_on_tiles_of_any_size():
    region = torch.zeros(1, 4, 6, dtype=torch.bool)
    region[0, 1:3, 2:5] = True
    drawn = draw_outline(torch.full((1, 3, 16, 24), 9, dtype=torch.uint8), region)[0, 0]
    expected = torch.full((16, 24), 9, dtype=torch.uint8)
    expected[3:13, 7:21] = 0
    expected[4:12, 8:20] = 255
    expected[5:11, 9:19] = 9
    assert torch.equal(drawn, expected)
