"""A small LightningModule and data for the tests of the callback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from tests.helpers.recorder import flat

CLASSES = ("top", "middle", "bottom")


class Bars(Dataset):
    """Bright bars on noise, whose position is the class; 3x16x16, normalized."""

    classes = CLASSES

    def __init__(self, count: int, seed: int = 0, by_class: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 3
        if by_class:
            self.labels = self.labels.sort().values
        self.pixels = torch.rand(count, 3, 16, 16, generator=generator) * 0.4
        for i, label in enumerate(self.labels.tolist()):
            self.pixels[i, :, 1 + 5 * label : 5 + 5 * label, 3:13] += 0.6
        self.transform = v2.Normalize([0.4, 0.4, 0.4], [0.25, 0.25, 0.25])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), int(self.labels[index])


def loader(count: int = 48, batch_size: int = 12, **kwargs: Any) -> DataLoader:
    keys = ("seed", "by_class")
    return DataLoader(Bars(count, **{k: kwargs.pop(k) for k in keys if k in kwargs}), batch_size, **kwargs)


class Body:
    """The body of `Lit`, for a LightningModule of either package."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.2),
        )  # fmt: skip
        self.head = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Lit(Body, LightningModule):
    """Two convolutions, dropout and BatchNorm, Adam."""


SIZES = {1: (96,), 3: (12, 16, 16)}
CONV = {1: nn.Conv1d, 3: nn.Conv3d}


def bodies(count: int, dimensions: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a body along the first spatial dimension where the class says, its labels and its masks."""
    generator = torch.Generator().manual_seed(seed)
    size = SIZES[dimensions]
    images = 0.3 * torch.randn(count, 1, *size, generator=generator)
    labels, masks = torch.arange(count) % 3, torch.zeros(count, *size, dtype=torch.bool)
    for i, label in enumerate(labels.tolist()):
        at = [slice((label * n) // 3 + n // 12, ((label + 1) * n) // 3 - n // 12) for n in size[:1]]
        at += [slice(5, 11)] * (dimensions - 1)
        masks[(i, *at)] = True
    return images + 1.5 * masks[:, None], labels, masks


class LitBodies(Lit):
    """Two convolutions over positions and their mean; a coordinate distinguishes positions."""

    dimensions = 1

    def __init__(self) -> None:
        super().__init__()
        conv = CONV[self.dimensions]
        self.features = nn.Sequential(
            conv(2, 8, 3, padding=1), nn.ReLU(), conv(8, 16, 3, stride=2, padding=1), nn.ReLU(inplace=True)
        )

    def forward(self, images: Tensor) -> Tensor:
        along = torch.linspace(-1, 1, images.shape[2], dtype=images.dtype, device=images.device)
        place = along.reshape(-1, *[1] * (self.dimensions - 1)).expand_as(images)
        return self.head(self.features(torch.cat([images, place], 1)).flatten(2).mean(2))


class LitVolumes(LitBodies):
    """The same for volumes."""

    dimensions = 3


BODIES = {1: LitBodies, 3: LitVolumes}


def fit(
    root: Path,
    callbacks: Any = (),
    *,
    trainer_class: Any = Trainer,
    model: LightningModule | None = None,
    make: Callable[[], LightningModule] = Lit,
    train: DataLoader | None = None,
    val: Any = "default",
    ckpt_path: str | None = None,
    **kwargs: Any,
) -> Trainer:
    """A seeded run of two epochs, with everything quiet."""
    seed_everything(7, verbose=False)
    model = model or make()
    arguments: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "default_root_dir": root,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
        "callbacks": list(callbacks) if isinstance(callbacks, Sequence) else callbacks,
    }
    trainer = trainer_class(**{**arguments, **kwargs})
    loaders = {"val_dataloaders": loader(36, 12, seed=1)} if val == "default" else {"val_dataloaders": val}
    train = loader(48, 12, shuffle=True) if train is None else train
    trainer.fit(model, train, **(loaders if val is not None else {}), ckpt_path=ckpt_path)
    return trainer


def weights(trainer: Trainer) -> dict[str, Any]:
    """All weights and buffers that training left, to be compared with ``==``."""
    return flat(trainer.lightning_module.state_dict())
