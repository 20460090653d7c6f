"""Hashes of weights and images."""

from __future__ import annotations

import copy

import torch

from lightning_gradcam.baseline.fingerprint import hash_pixels, hash_weights
from tests.helpers.models import TinyResNet


def test_hashes_distinguish_weights_and_pixels():
    model, images = TinyResNet(), torch.rand(2, 3, 8, 8)
    assert hash_weights(model) == hash_weights(copy.deepcopy(model))
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.fc.bias[0] += 1e-6
    assert hash_weights(changed) != hash_weights(model)
    assert hash_pixels(images) != hash_pixels(images + 1 / 255)
    assert hash_pixels(images) != hash_pixels(images.flip(0))
    assert hash_pixels(images) != hash_pixels(images.reshape(2, 3, 4, 16))
