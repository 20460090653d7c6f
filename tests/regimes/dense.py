"""Regimes of models with one output per pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gradcam import SegmentationScore
from tests.helpers.lit import Bars, Lit
from tests.regimes.regime import Regime


class Masked(Bars):
    """Bars with a class per pixel: 0 outside the bar, and 255, which losses ignore, at its edges."""

    classes = ("beside", "top", "middle", "bottom")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # of another kind
        image, label = super().__getitem__(index)
        mask = torch.zeros(image.shape[1:], dtype=torch.long)
        mask[5 * label : 6 + 5 * label, 2:14] = 255
        mask[1 + 5 * label : 5 + 5 * label, 3:13] = label + 1
        return image, mask


class Segments(Lit):
    """A small U-Net: the features of `Lit`, concatenated with the image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(19, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 4, 1))

    def forward(self, images: Tensor) -> Tensor:
        deep = nn.functional.interpolate(self.features(images), size=images.shape[-2:], mode="nearest")
        return self.head(torch.cat([images, deep], 1))

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1], ignore_index=255)


def masked(count: int, seed: int = 0) -> DataLoader:
    return DataLoader(Masked(count, seed), 3, shuffle=seed == 0)


DENSE = {"model": Segments, "train": lambda: masked(12), "val": lambda: masked(9, 1)}

ROWS = [
    Regime("segmentation", "the class with the most pixels of each mask", "torch random state", **DENSE),
    Regime(
        "segmentation, predicted class", "the class with the most pixels, and those of earlier snapshots",
        "torch random state",
        monitor=lambda: {"target": "predicted", "layers": "stages"}, **DENSE,
    ),
    Regime(
        "segmentation, one class", "a target object, and mirrored images", "torch random state",
        monitor=lambda: {"target": SegmentationScore(2), "flips": True}, **DENSE,
    ),
]  # fmt: skip
