"""Captions, read back from their pixels."""

from __future__ import annotations

import torch

from lightning_gradcam.render.captions import Captions
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.font import Font
from tests.helpers.models import read

FONT = Font.load()


def read_lines(captions: Captions, drawn: torch.Tensor, count: int) -> list[str]:
    tops = [1 + i * FONT.height for i in range(count)]
    return [read(FONT, drawn[:, top : top + FONT.height, 1:-1], INK, PAPER).rstrip() for top in tops]


def test_labels_and_scores_of_different_lengths_are_aligned():
    captions = Captions.from_names(["pine", "oak"], torch.tensor([1, 0]), FONT, 180)
    drawn = captions.draw(torch.zeros(2, 0), scores=torch.tensor([-0.83, 123.4]))
    assert drawn.shape == (2, 3, 2 * FONT.height + 2, 180)
    assert read_lines(captions, drawn[0], 2) == ["label oak", "score  -0.83"]
    assert read_lines(captions, drawn[1], 2) == ["label pine", "score  123.4"]


def test_regions_are_named_by_their_class():
    captions = Captions.from_names(["pine", "oak"], None, FONT, 180)
    assert captions.draw(torch.zeros(2, 0)).shape == (2, 3, 0, 180)
    captions = Captions(FONT, captions.name_codes, None, 180, region_classes=torch.tensor([1, 0]))
    drawn = captions.draw(torch.zeros(2, 0), scores=torch.ones(2))
    assert [read_lines(captions, image, 1) for image in drawn] == [["class oak"], ["class pine"]]
