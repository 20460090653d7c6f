"""What is explained: several scores, several labels, pairs, and what stands before a softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gradcam import CosineSimilarity, EmbeddingNorm, Probe, TopK
from tests.helpers.lit import Bars, Lit
from tests.regimes.regime import Regime


class SeveralBars(Bars):
    """Each bar may be there, or not; so has each its own label."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # of another kind
        labels = torch.tensor([index % 2, index % 3 == 0, index % 4 == 1]).float()
        pixels = self.pixels[index].clone()
        for label in labels.nonzero()[:, 0].tolist():
            pixels[:, 1 + 5 * label : 5 + 5 * label, 3:13] += 0.6
        return self.transform(pixels.clamp(0, 1)), labels


class MultiLabel(Lit):
    """A sigmoid for each class."""

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])


class Embeds(Lit):
    """Normalised embeddings, and a loss that compares each with the next one."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(super().forward(images))

    def loss(self, batch: Any) -> Tensor:
        embeddings, labels = self(batch[0]), batch[1]
        same = (labels == labels.roll(1)).float() * 2 - 1
        return (same - (embeddings * embeddings.roll(1, 0)).sum(1)).square().mean()


class PutsOutProbabilities(Lit):
    """Ends in a softmax."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.nll_loss(self(batch[0]).log(), batch[1])


def pairs() -> Probe:
    """Each image with one of its class or of another one."""
    data = Bars(8)
    images = torch.stack([data[i][0] for i in range(8)])
    return Probe(images[:4], references=images[4:])


def several(count: int, seed: int = 0) -> DataLoader:
    return DataLoader(SeveralBars(count, seed), 3)


ROWS = [
    Regime(
        "the best classes", "as many backward passes, each also for the classes of looks before",
        "torch random state", monitor=lambda: {"target": TopK(2)},
    ),
    Regime("a margin", "one class against another", "torch random state", monitor=lambda: {"target": "margin"}),
    Regime(
        "several labels", "a sigmoid for each class, and a map for each label", "torch random state",
        model=MultiLabel, train=lambda: several(12), val=lambda: several(9, 1),
    ),
    Regime(
        "pairs of images", "both sides in one batch of twice the size", "torch random state", model=Embeds,
        monitor=lambda: {"target": CosineSimilarity(), "probe": pairs()},
    ),
    Regime(
        "norms of embeddings", "what is normalised behind the score", "torch random state", model=Embeds,
        monitor=lambda: {"target": EmbeddingNorm()}, looks=2,
    ),
    Regime(
        "a softmax at the end", "what it was given is explained", "torch random state", model=PutsOutProbabilities,
    ),
]  # fmt: skip
