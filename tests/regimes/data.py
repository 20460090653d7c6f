"""Regimes of data: shuffling, workers, augmentation, iterables, several loaders."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from tests.helpers.lit import Bars, Lit, loader
from tests.regimes.regime import Regime


class Augmented(Bars):
    """A dataset that draws from all three generators for every image."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + 0.1 * (torch.rand(()) + np.random.rand() + random.random()), label


class Streamed(IterableDataset):
    """A stream that continues where it stopped: an extra reader would take images from the run."""

    def __init__(self, seed: int) -> None:
        self.data, self.position = Bars(24, seed), 0

    def __iter__(self):
        for _ in range(12):
            self.position += 1
            yield self.data[self.position % 24]


class Unknown(Bars):
    """Images whose labels are not classes of the model."""

    def __getitem__(self, index):
        return super().__getitem__(index)[0], 100 + index


class AugmentsOnDevice(Lit):
    """A module that adds noise after the transfer; its step also changes the batch in place."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + 0.1 * torch.rand_like(batch[0]), batch[1]

    def training_step(self, batch, batch_idx):
        batch[0].mul_(0.9)
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        batch[0].mul_(0.9)
        super().validation_step(batch, batch_idx)


class Iterates(Lit):
    """A module whose steps fetch their batches themselves."""

    def training_step(self, dataloader_iter):
        return self.loss(next(dataloader_iter)[0])

    def validation_step(self, dataloader_iter):
        self.log("val_loss", self.loss(next(dataloader_iter)[0]), batch_size=3)


class SeveralValidations(Lit):
    """A module that measures confidence on a second validation loader."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        logits = self(batch[0])
        self.log("confidence", logits.softmax(1).amax(1).mean())


class Combined(Lit):
    """A module that trains on two loaders at once."""

    def training_step(self, batch, batch_idx):
        return self.loss(batch["clean"]) + self.loss(batch["noisy"])


def own_generator(count: int, seed: int, workers: int = 0) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    kwargs: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0, "generator": generator}
    return DataLoader(Augmented(count, seed), 3, shuffle=True, **kwargs)


def pair(**kwargs: Any) -> dict[str, DataLoader]:
    return {"clean": loader(12, 3, shuffle=True, **kwargs), "noisy": DataLoader(Augmented(9), 3, shuffle=True)}


SHUFFLED = "Your `val_dataloader`'s sampler has shuffling"

ROWS = [
    Regime(
        "own generators", "both loaders shuffle with their own generator", "never loads",
        train=lambda: own_generator(12, 0), val=lambda: own_generator(9, 1), tolerates=SHUFFLED,
    ),
    Regime(
        "persistent workers", "worker processes live as long as training", "never loads",
        train=lambda: own_generator(12, 0, workers=1), val=lambda: own_generator(9, 1, workers=1), tolerates=SHUFFLED,
    ),
    Regime(
        "augmented images", "`__getitem__` draws random numbers", "never indexes",
        train=lambda: DataLoader(Augmented(12), 3), val=lambda: DataLoader(Augmented(9, 1), 3),
    ),
    Regime("augmented batches", "`on_after_batch_transfer` draws", "never transfers", model=AugmentsOnDevice),
    Regime(
        "iterable datasets", "a stream yields every image once", "never loads",
        train=lambda: DataLoader(Streamed(0), 3), val=lambda: DataLoader(Streamed(1), 3),
    ),
    Regime(
        "several validation loaders", "the second loader has images of other classes", "first loader",
        model=SeveralValidations, val=lambda: [loader(9, 3, seed=1), DataLoader(Unknown(6), 3)],
    ),
    Regime("dict of training loaders", "combined batches", "never loads", model=Combined, train=pair),
    Regime(
        "CombinedLoader, no validation", "the probe comes from a combined batch", "validates",
        model=Combined, train=lambda: CombinedLoader(pair(), "min_size"), val=None, looks=2,
    ),
    Regime(
        "steps that take an iterator", "a batch is only known at the end of its step", "iterator steps",
        model=Iterates, tolerates=".*dataloader_iter",
    ),
    Regime(
        "iterator steps, no validation", "the same for training batches", "validates",
        model=Iterates, val=None, looks=2, tolerates=".*dataloader_iter",
    ),
    Regime(
        "loaders recreated", "every epoch has new loaders", "never loads",
        trainer={"reload_dataloaders_every_n_epochs": 1},
    ),
]  # fmt: skip
