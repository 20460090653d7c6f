"""Layers that `auto` chooses in small copies of published structures, where the last feature map is a part of it."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import explain
from tests.helpers.models import perturbed
from tests.helpers.structures import (
    AnomalyMap,
    AuxiliaryHead,
    ClassAttention,
    EncoderDecoder,
    FlatConvolutions,
    FlatResiduals,
    Padded,
    Pyramid,
    SequencePooling,
    SharedActivationNet,
    reduction_net,
)


@pytest.mark.parametrize(("make", "size", "name"), [
    (reduction_net, 16, "body.1"),  # 4x4; the branches halve it
    (SharedActivationNet, 16, "blocks.2"),  # 4x4; not the activation inside of the last block
    (EncoderDecoder, 16, "encoder"),  # not the projections of the last cross attention
    (ClassAttention, 16, "blocks"),
    (AuxiliaryHead, 16, "blocks"),
    (FlatResiduals, 16, "transformer.layers.1.0.norm"),  # the last that reads the patches, and all of their sum
    (FlatConvolutions, 16, "branches.1"),  # not the stem, since the branches change the sum
    (SequencePooling, 16, "norm"),
    (AnomalyMap, 16, "features"),
    (Padded, 16, "features"),  # 4x4; the padding has 5x5
    (Pyramid, 32, "smooth"),  # not the head, which runs on both levels
])  # fmt: skip
def test_auto_chooses_the_map_that_holds_all_evidence(make, size, name):
    torch.manual_seed(0)
    found = explain(perturbed(make()), torch.randn(2, 3, size, size), target=1)
    assert list(found.layers) == [name]


def test_auto_counts_cells_of_images_that_are_not_square():
    model = torchvision.models.resnet18(num_classes=3)
    model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    found = explain(model, torch.randn(1, 1, 128, 200))
    assert {key: evidence.shape[1:] for key, evidence in found.evidence.items()} == {"layer4": (4, 7)}
