"""The pictures of a report: the image, what was seen in it before and now, and the change, for images of any kind."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.render.colors import PAPER
from lightning_gradcam.render.photos import SEAM
from lightning_gradcam.render.side_by_side import TILE, draw_pairs, draw_strips


def explained(evidence, size):
    return Explanation(
        {"a": evidence}, torch.zeros(len(evidence), 2), None, size, {"a": Layer("a")}, {"a": find_status(evidence)}
    )


def pair(dimensions, side=12, cells=4):
    """Images, evidence that grows along the last dimension, and the same with more of it in the first cell."""
    images = torch.rand(3, 1, *[side] * dimensions)
    before = torch.linspace(0, 1, cells).expand(3, *[cells] * dimensions).clone()
    after = before.clone()
    after[(1, *[0] * dimensions)] = 1
    return images, *(explained(evidence, (side,) * dimensions) for evidence in (before, after))


def tiles(picture, count):
    width = (picture.shape[-1] - (count - 1) * SEAM) // count
    assert picture.shape[-1] == count * width + (count - 1) * SEAM
    return [picture[..., i * (width + SEAM) : i * (width + SEAM) + width] for i in range(count)]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_before_and_after_stand_beside_the_image_and_differ_where_they_do(dimensions):
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


def test_a_photo_is_the_image_and_its_change_red_for_more_and_blue_for_less():
    images, before, after = pair(2)
    photo, _, _, change = tiles(draw_strips(images, before, after, [1])[1], 4)
    factor = TILE // 12
    expected = (images[1].repeat_interleave(factor, 1).repeat_interleave(factor, 2) * 255).expand(3, -1, -1)
    assert (photo.float() - expected).abs().max() <= 1
    redness = change[0].float() - change[2].float()
    third = len(redness) // 8
    assert redness[:third, :third].min() > 20
    assert redness[third * 5 :, third * 5 :].abs().max() == 0
    less = tiles(draw_strips(images, after, before, [1])[1], 4)[3]
    assert (less[0].float() - less[2].float())[:third, :third].max() < -20


def test_of_no_rows_there_is_no_picture():
    images, before, after = pair(2)
    assert draw_strips(images, before, after, []) == {}
