"""Handwritten digits: a small CNN, eight epochs, and one picture of how its explanations changed.

    python examples/digits.py

needs scikit-learn, whose digits are bundled, and takes half a minute on two cores.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from lightning_gradcam import GradCAMCallback


class Digits(Dataset[tuple[Tensor, int]]):
    """1,797 handwritten digits of 8x8 pixels, enlarged to 32x32: every fifth one validates."""

    classes = tuple(str(digit) for digit in range(10))

    def __init__(self, train: bool) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
        chosen = (torch.arange(len(images)) % 5 != 0) == train
        self.images, self.labels = images[chosen], digits.target[chosen.numpy()]
        self.transform = v2.Compose([v2.Resize((32, 32)), v2.Normalize(mean=[0.3], std=[0.35])])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class DigitsData(LightningDataModule):
    """Loaders of `Digits`."""

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled."""
        return DataLoader(Digits(train=True), batch_size=64, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """In order."""
        return DataLoader(Digits(train=False), batch_size=64)


class LitDigits(LightningModule):
    """Three convolutions, their mean, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the ten digits."""
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Cross-entropy."""
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Loss and accuracy."""
        logits = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def main(epochs: int = 8, root: str = ".") -> Path:
    """Train, and return where the picture of the run lies."""
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)
    seed_everything(0)
    explanations = GradCAMCallback(film=min(epochs + 1, 16))  # the line to copy
    trainer = Trainer(
        max_epochs=epochs,
        logger=TensorBoardLogger(root, name="lightning_logs"),
        callbacks=[explanations],
        accelerator="cpu",
        log_every_n_steps=10,
    )
    trainer.fit(LitDigits(), datamodule=DigitsData())

    found = {name.removeprefix("gradcam/"): float(value) for name, value in trainer.callback_metrics.items()}
    tensorboard = shutil.which("tensorboard") or os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    picture = Path(trainer.log_dir or root, "explanations.png")
    film = explanations.draw_film()
    if film is not None:
        to_pil_image(film).save(picture)
    print(f"""
What was found after {epochs} epochs
  validation accuracy {found["val_acc"]:.2f}, on the watched images {found["accuracy"]:.2f}
  the explanations moved by {found["drift"]:.2f} in the last epoch, by {found["drift_from_start"]:.2f} since the start
  (1 - rank correlation: 0 is the same, 1 is unrelated); {found["degenerate"]:.0%} of the maps are degenerate
Where it is
  the run in one picture: {picture}
  all looks and curves:   {tensorboard} --logdir {Path(root, "lightning_logs")} --samples_per_plugin images=200""")
    return picture


if __name__ == "__main__":
    main()
