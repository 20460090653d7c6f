"""Isolation of TorchScript modules."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from lightning_gradcam.capture.isolation import isolated


def test_torchscript_modules_are_evaluated_and_restored():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)))
    model = nn.Sequential(block, nn.Flatten())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.rand(2, 3, 8, 8)
    with isolated(model):
        assert torch.equal(model(images), model(images))  # dropout is off
        block.train()
        model(images)  # statistics move
    assert all(module.training for module in model.modules())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
