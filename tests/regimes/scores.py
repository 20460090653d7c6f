"""Regimes of targets: several scores, several labels, pairs, and scores before a softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gradcam import CosineSimilarity, EmbeddingNorm, Probe, TopK
from tests.helpers.lit import Bars, Lit
from tests.regimes.regime import Regime


class SeveralBars(Bars):
    """Images with any number of bars, with one label per kind of bar."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # of another kind
        labels = torch.tensor([index % 2, index % 3 == 0, index % 4 == 1]).float()
        pixels = self.pixels[index].clone()
        for label in labels.nonzero()[:, 0].tolist():
            pixels[:, 1 + 5 * label : 5 + 5 * label, 3:13] += 0.6
        return self.transform(pixels.clamp(0, 1)), labels


class MultiLabel(Lit):
    """A model with one sigmoid per class."""

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])


class Embeds(Lit):
    """A model of normalized embeddings, with a loss that compares each with the next one."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(super().forward(images))

    def loss(self, batch: Any) -> Tensor:
        embeddings, labels = self(batch[0]), batch[1]
        same = (labels == labels.roll(1)).float() * 2 - 1
        return (same - (embeddings * embeddings.roll(1, 0)).sum(1)).square().mean()


class PutsOutProbabilities(Lit):
    """A model that ends in a softmax."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.nll_loss(self(batch[0]).log(), batch[1])


def pairs() -> Probe:
    """Return pairs of images of the same class or of different classes."""
    data = Bars(8)
    images = torch.stack([data[i][0] for i in range(8)])
    return Probe(images[:4], references=images[4:])


def several(count: int, seed: int = 0) -> DataLoader:
    return DataLoader(SeveralBars(count, seed), 3)


ROWS = [
    Regime(
        "the best classes", "one backward pass per class, including those of earlier snapshots",
        "torch random state", monitor=lambda: {"target": TopK(2)},
    ),
    Regime("a margin", "one class compared with another", "torch random state", monitor=lambda: {"target": "margin"}),
    Regime(
        "several labels", "one sigmoid per class and one map per label", "torch random state",
        model=MultiLabel, train=lambda: several(12), val=lambda: several(9, 1),
    ),
    Regime(
        "pairs of images", "both sides in one batch of twice the size", "torch random state", model=Embeds,
        monitor=lambda: {"target": CosineSimilarity(), "probe": pairs()},
    ),
    Regime(
        "norms of embeddings", "embeddings are normalized after the score", "torch random state", model=Embeds,
        monitor=lambda: {"target": EmbeddingNorm()}, looks=2,
    ),
    Regime(
        "a softmax at the end", "its input is explained", "torch random state", model=PutsOutProbabilities,
    ),
]  # fmt: skip
