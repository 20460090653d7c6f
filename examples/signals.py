"""Generated noisy signals with one event each, or none: the event is the class, and its position is known.

    python examples/signals.py

trains a small one-dimensional CNN to name the event; TensorBoard shows how it learns to find it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradcam import GradCAMCallback

LENGTH = 256
EVENTS = ("bump", "dip", "burst", "nothing")


def signal(index: int) -> tuple[Tensor, int, Tensor]:
    """Return signal number ``index`` ``(1, LENGTH)``, its class, and the mask of its event ``(LENGTH,)``."""
    generator = torch.Generator().manual_seed(index)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    label = index % len(EVENTS)
    time = torch.arange(LENGTH, dtype=torch.float32)
    values = 0.12 * torch.randn(LENGTH, generator=generator)
    for period in (between(90, 160), between(35, 60)):  # a slow drift without meaning
        values += 0.35 * torch.sin(2 * math.pi * time / period + between(0, 6))
    center, width = between(40, LENGTH - 40), between(7, 11)
    shape = torch.exp(-(((time - center) / width) ** 2))
    match EVENTS[label]:
        case "bump":
            values += 1.4 * shape
        case "dip":
            values -= 1.4 * shape
        case "burst":
            values += 1.1 * shape * torch.sin(time * 2 * math.pi / 5)
    return values[None], label, ((time - center).abs() < 2 * width) & (EVENTS[label] != "nothing")


class Signals(TensorDataset):
    """``count`` signals and their classes."""

    classes = EVENTS

    def __init__(self, count: int, first: int = 0) -> None:
        samples = [signal(first + index) for index in range(count)]
        super().__init__(
            torch.stack([values for values, _, _ in samples]), torch.tensor([label for _, label, _ in samples])
        )


class LitSignals(LightningModule):
    """A small CNN: three stages, each of half the length, and a linear layer on the mean."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64)
        self.features = nn.Sequential(
            *(
                layer
                for i, o in pairwise(widths)
                for layer in (nn.Conv1d(i, o, 7, stride=2, padding=3, bias=False), nn.BatchNorm1d(o), nn.ReLU())
            ),
            nn.Conv1d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, len(EVENTS))

    def forward(self, signals: Tensor) -> Tensor:
        """Return the logits of the events."""
        logits: Tensor = self.head(self.features(signals).mean(2))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Log loss and accuracy."""
        logits = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(epochs: int = 8, signals: int = 1200, root: str = ".") -> None:
    """Train with the callback; a CSVLogger next to TensorBoard makes it write its figures as files, too."""
    seed_everything(0)
    files = CSVLogger(root, name="lightning_logs")
    trainer = Trainer(
        max_epochs=epochs,
        logger=[TensorBoardLogger(root, version=files.version), files],
        callbacks=[GradCAMCallback()],
        log_every_n_steps=10,
    )
    train = DataLoader(Signals(signals), batch_size=32, shuffle=True)
    val = DataLoader(Signals(200, first=100_000), batch_size=50)
    trainer.fit(LitSignals(), train, val)
    print(f"Figures: {files.log_dir}/gradcam\nCurves:  tensorboard --logdir {Path(root, 'lightning_logs')}")


if __name__ == "__main__":
    main()
