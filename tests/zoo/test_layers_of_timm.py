"""Layers that `auto` chooses in models of timm, with random weights: one model per structure."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import explain
from tests.parity.architectures import randomize

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize(("model", "size", "name", "grid"), [
    ("resnet18", 160, "layer4", (5, 5)),
    ("inception_resnet_v2", 160, "repeat_1", (8, 8)),  # and not a branch of the block that halves the grid
    ("inception_v4", 160, "features.17", (8, 8)),
    ("cait_xxs24_224", 224, "blocks", (14, 14)),  # and not the class attention
    ("volo_d1_224", 224, "norm", (14, 14)),  # and not the auxiliary head
    ("vit_tiny_patch16_224", 224, "blocks.11.norm1", (14, 14)),
    ("deit_tiny_distilled_patch16_224", 224, "blocks.11.norm1", (14, 14)),
])  # fmt: skip
def test_auto_in_timm_model(model, size, name, grid):
    import timm

    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=5).eval()
    randomize(network)
    found = explain(network, torch.rand(1, 3, size, size), target=1)
    assert {key: evidence.shape[1:] for key, evidence in found.evidence.items()} == {name: grid}
