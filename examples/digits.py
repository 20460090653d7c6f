"""Handwritten digits: a small CNN, eight epochs, and a filmstrip of its explanations.

    python examples/digits.py

takes half a minute on two cores. It needs scikit-learn, which includes the digits.
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
    """1,797 handwritten digits of 8x8 pixels, enlarged to 32x32; every fifth one is for validation."""

    classes = tuple(str(digit) for digit in range(10))

    def __init__(self, train: bool) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
        selected = (torch.arange(len(images)) % 5 != 0) == train
        self.images, self.labels = images[selected], digits.target[selected.numpy()]
        self.transform = v2.Compose([v2.Resize((32, 32)), v2.Normalize(mean=[0.3], std=[0.35])])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class DigitsData(LightningDataModule):
    """Loaders for `Digits`."""

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return the shuffled training loader."""
        return DataLoader(Digits(train=True), batch_size=64, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return the validation loader."""
        return DataLoader(Digits(train=False), batch_size=64)


class LitDigits(LightningModule):
    """A CNN: three convolutions, their mean, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the ten digits."""
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the cross-entropy."""
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Log loss and accuracy."""
        logits = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def main(epochs: int = 8, root: str = ".") -> Path:
    """Train, and return the path of the filmstrip."""
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

    metrics = {name.removeprefix("gradcam/"): float(value) for name, value in trainer.callback_metrics.items()}
    tensorboard = shutil.which("tensorboard") or os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    path = Path(trainer.log_dir or root, "explanations.png")
    film = explanations.draw_film()
    if film is not None:
        to_pil_image(film).save(path)
    print(f"""
Results after {epochs} epochs
  accuracy: {metrics["val_acc"]:.2f} in validation, {metrics["accuracy"]:.2f} on the explained images
  drift of the explanations: {metrics["drift"]:.2f} in the last epoch, {metrics["drift_from_start"]:.2f} since the start
  (1 - rank correlation: 0 is unchanged, 1 is unrelated); {metrics["degenerate"]:.0%} of the maps are degenerate
Files
  filmstrip of the run:     {path}
  all snapshots and curves: {tensorboard} --logdir {Path(root, "lightning_logs")} --samples_per_plugin images=200""")
    return path


if __name__ == "__main__":
    main()
