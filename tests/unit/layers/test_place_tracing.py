"""Layouts that the graph proves, compared with the places of cells whose numbers tell where they come from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam.capture.layouts import Tokens, channels_first, channels_last
from lightning_gradcam.layers.place_tracing import PlaceTracer
from lightning_gradcam.layers.recommend import recommended_layers
from lightning_gradcam.layers.spatial_grid import GridReading
from tests.helpers.structures import ClassAttention, FlatResiduals
from tests.unit.layers.test_layout_check import IMAGES, WRONG, Transformer

SIZE = (8, 12)


def join(tokens, front=0, behind=0, learned=True):
    extra = [torch.zeros(2, count, tokens.shape[2], requires_grad=learned) for count in (front, behind)]
    return torch.cat([extra[0], tokens, extra[1]], 1)


def merge(maps):
    return torch.cat([maps[:, row::2, column::2] for row in (0, 1) for column in (0, 1)], -1)


STEPS = {
    "channels last": (lambda x: x.permute(0, 2, 3, 1), channels_last, SIZE, True),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), Tokens(SIZE), SIZE, True),
    "tokens that precede images": (lambda x: x.flatten(2).permute(2, 0, 1), Tokens(SIZE, rows=1), SIZE, True),
    "columns first": (lambda x: x.mT.flatten(2).mT, Tokens(SIZE), SIZE, False),
    "columns first, known": (lambda x: x.mT.flatten(2).mT, Tokens(SIZE, order=(1, 0)), SIZE, True),
    "class token": (lambda x: join(x.flatten(2).mT, 1), Tokens(SIZE, 1), SIZE, True),
    "frozen class token": (lambda x: join(x.flatten(2).mT, 1, learned=False), None, SIZE, False),
    "class token behind": (lambda x: join(x.flatten(2).mT, 0, 1), Tokens(SIZE, 1), SIZE, False),
    "left out again": (lambda x: join(x.flatten(2).mT, 1, 2)[:, 1:-1], Tokens(SIZE, 1, suffix=1), SIZE, True),
    "cells left out": (lambda x: join(x.flatten(2).mT, 1)[:, :-1], Tokens(SIZE), SIZE, False),
    "merged": (lambda x: merge(x.permute(0, 2, 3, 1)), channels_last, (4, 6), True),
    "patches": (
        lambda x: x.reshape(2, 3, 4, 2, 6, 2).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2),
        Tokens((4, 6)), (4, 6), True,
    ),
    "windows": (
        lambda x: x.reshape(2, 3, 4, 2, 6, 2).permute(0, 3, 5, 2, 4, 1).flatten(1, 4), Tokens(SIZE), SIZE, False,
    ),
    "shuffled": (lambda x: x.flatten(2).mT[:, torch.randperm(96)], Tokens(SIZE), SIZE, False),
    "sorted": (lambda x: x.flatten(2).mT.sort(1).values, Tokens(SIZE), SIZE, False),
    "rolled": (lambda x: x.roll(1, 2), channels_first, SIZE, False),
    "mixed": (lambda x: torch.rand(96, 96) @ x.flatten(2).mT, Tokens(SIZE), SIZE, False),
    "mixed, added": (lambda x: x.flatten(2).mT + torch.rand(96, 96) @ x.flatten(2).mT, Tokens(SIZE), SIZE, True),
    "linear": (lambda x: nn.Linear(3, 5)(x.flatten(2).mT), Tokens(SIZE), SIZE, True),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_layouts_are_proven_where_cells_stay_in_place(name):
    change, layout, grid, is_proven = STEPS[name]
    images = torch.rand(2, 3, *SIZE, requires_grad=True).clone()
    reading = GridReading(grid, layout or Tokens(SIZE, 2))
    assert PlaceTracer(images, SIZE).proves(change(images), reading) == is_proven


@pytest.mark.parametrize(("make", "is_proven"), [
    (FlatResiduals, True),
    (ClassAttention, True),
    (lambda: Transformer(behind=4), False),  # inferred as tokens in front, which the patches show to be wrong
    (lambda: Transformer(change=WRONG["shuffled"]), False),
])  # fmt: skip
def test_model_with_proven_layouts_runs_once(make, is_proven):
    torch.manual_seed(1)
    calls = []
    model = make().eval()
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    recommended_layers(model, IMAGES, target=1)
    assert (len(calls) == 1) == is_proven
