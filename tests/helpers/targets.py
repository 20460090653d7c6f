"""A small model with a probe, labels and references for tests of targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gradcam import (
    Probe,
)
from tests.helpers.models import perturbed, plain_cnn

LABELS = torch.tensor([4, 0, 2])


SEVERAL = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


REFERENCES = torch.tensor([[1.0, 2, 0, -1, 0], [0, 0, 3, 0, 1], [1, 1, 1, 1, 1]])


def pair(labels: Tensor | None = None, references: Tensor | None = None) -> tuple[nn.Module, Probe]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(3, 3, 12, 12, generator=generator)
    return perturbed(plain_cnn()), Probe(images, labels=labels, references=references)


def key(layer: str, end: str) -> str:
    return f"{layer}/{end}" if end else layer
