"""Figures of a report: the image, both overlays and their difference, for images of any kind."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.render.arrangement import SEAM
from lightning_gradcam.render.colors import PAPER
from lightning_gradcam.render.side_by_side import TILE_WIDTH, draw_pairs, draw_strips


def explained(evidence, size):
    return Explanation(
        {"a": evidence}, torch.zeros(len(evidence), 2), None, size, {"a": Layer("a")}, {"a": find_status(evidence)}
    )


def pair(dimensions, side=12, cells=4):
    """Return images, evidence that grows along the last dimension, and a copy with more in the first cell."""
    images = torch.rand(3, 1, *[side] * dimensions)
    before = torch.linspace(0, 1, cells).expand(3, *[cells] * dimensions).clone()
    after = before.clone()
    after[(1, *[0] * dimensions)] = 1
    return images, *(explained(evidence, (side,) * dimensions) for evidence in (before, after))


def tiles(figure, count):
    width = (figure.shape[-1] - (count - 1) * SEAM) // count
    assert figure.shape[-1] == count * width + (count - 1) * SEAM
    return [figure[..., i * (width + SEAM) : i * (width + SEAM) + width] for i in range(count)]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_strips_show_image_and_both_overlays(dimensions):
    images, before, after = pair(dimensions)
    found = draw_strips(images, before, after, [2, 1])
    assert list(found) == [2, 1]
    same, changed = (tiles(found[row], 4 if dimensions == 2 else 3) for row in (2, 1))
    assert torch.equal(same[1], same[2])
    assert not torch.equal(changed[1], changed[2])
    for tile in (*same, *changed):
        assert tile.dtype == torch.uint8
        assert tile.float().std() > 0
    assert torch.equal(tiles(draw_pairs(images, before, [2, 1])[1], 2)[1], changed[1])
    # What is lower than the others stands at the top, on paper.
    edge = torch.tensor(PAPER, dtype=torch.uint8)[:, None]
    if dimensions == 1:
        assert (same[0][:, -1] == edge).all()
    if dimensions == 3:
        assert (same[1][:, -1] == edge).all()


def test_strips_of_photos_show_the_change():
    images, before, after = pair(2)
    photo, _, _, change = tiles(draw_strips(images, before, after, [1])[1], 4)
    factor = TILE_WIDTH // 12
    expected = (images[1].repeat_interleave(factor, 1).repeat_interleave(factor, 2) * 255).expand(3, -1, -1)
    assert (photo.float() - expected).abs().max() <= 1
    redness = change[0].float() - change[2].float()
    third = len(redness) // 8
    assert redness[:third, :third].min() > 20
    assert redness[third * 5 :, third * 5 :].abs().max() == 0
    less = tiles(draw_strips(images, after, before, [1])[1], 4)[3]
    assert (less[0].float() - less[2].float())[:third, :third].max() < -20


def test_strips_of_no_images_are_empty():
    images, before, after = pair(2)
    assert draw_strips(images, before, after, []) == {}


def test_bands_are_shown_as_red_green_and_blue():
    _, before, after = pair(2)
    bands = torch.rand(3, 5, 12, 12)
    chosen = draw_strips(bands, before, after, [1], (3, 2, 0))
    assert torch.equal(chosen[1], draw_strips(bands[:, [3, 2, 0]], before, after, [1])[1])
    assert not torch.equal(chosen[1], draw_strips(bands, before, after, [1])[1])
    assert torch.equal(draw_pairs(bands, before, [0], (4,))[0], draw_pairs(bands[:, [4]], before, [0])[0])
