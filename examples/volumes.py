"""Noisy volumes with one body each, or none, made on the spot: it names the class, and its place is known.

    python examples/volumes.py

trains a small three-dimensional CNN to name the body, and TensorBoard shows how it learns in which slices to look.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradcam import GradCAMCallback

SIZE = (24, 40, 40)
"""Depth first, then height and width."""

BODIES = ("ball", "box", "ring", "nothing")


def volume(index: int) -> tuple[Tensor, int, Tensor]:
    """The volume of that number ``(1, *SIZE)``, its class, and where its body is ``SIZE``; always the same."""
    generator = torch.Generator().manual_seed(index)
    label = index % len(BODIES)
    axes = [torch.arange(length, dtype=torch.float32) for length in SIZE]
    place = [7 + (length - 15) * float(torch.rand((), generator=generator)) for length in SIZE]
    z, y, x = torch.meshgrid(*(axis - at for axis, at in zip(axes, place, strict=True)), indexing="ij")
    r = 4.5 + 1.5 * float(torch.rand((), generator=generator))
    away = (y**2 + x**2).sqrt()
    shapes = {
        "ball": (z**2 + away**2).sqrt() <= r,
        "box": torch.stack([z.abs(), y.abs(), x.abs()]).amax(0) <= 0.8 * r,
        "ring": (z.abs() <= 0.5 * r) & ((away - 0.9 * r).abs() <= 0.25 * r),
        "nothing": torch.zeros(SIZE, dtype=torch.bool),
    }
    mask = shapes[BODIES[label]]
    fog = torch.rand(1, 1, 4, 5, 5, generator=generator)  # that means nothing
    values = 0.3 * nn.functional.interpolate(fog, size=SIZE, mode="trilinear")[0]
    values += 0.06 * torch.randn(values.shape, generator=generator)
    return (values + 0.5 * mask).clamp(0, 1), label, mask


class Volumes(TensorDataset):
    """``count`` volumes and their classes."""

    classes = BODIES

    def __init__(self, count: int, first: int = 0) -> None:
        made = [volume(first + index) for index in range(count)]
        super().__init__(torch.stack([values for values, _, _ in made]), torch.tensor([label for _, label, _ in made]))


class LitVolumes(LightningModule):
    """A small CNN: two stages, each half as large, and a linear layer on the largest value of each channel."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32)
        self.features = nn.Sequential(
            *(
                layer
                for i, o in pairwise(widths)
                for layer in (nn.Conv3d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm3d(o), nn.ReLU())
            ),
            nn.Conv3d(32, 48, 3, padding=1, bias=False),
            nn.BatchNorm3d(48),
            nn.ReLU(),
        )
        self.head = nn.Linear(48, len(BODIES))

    def forward(self, volumes: Tensor) -> Tensor:
        """Logits of the bodies."""
        logits: Tensor = self.head(self.features(volumes).amax((2, 3, 4)))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Loss and accuracy."""
        logits = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(epochs: int = 6, volumes: int = 800, root: str = ".") -> None:
    """Train with the callback; a CSVLogger beside TensorBoard makes it leave its pictures as files, too."""
    seed_everything(0)
    files = CSVLogger(root, name="lightning_logs")
    trainer = Trainer(
        max_epochs=epochs,
        logger=[TensorBoardLogger(root, version=files.version), files],
        callbacks=[GradCAMCallback()],
        log_every_n_steps=10,
    )
    train = DataLoader(Volumes(volumes), batch_size=32, shuffle=True)
    val = DataLoader(Volumes(200, first=100_000), batch_size=50)
    trainer.fit(LitVolumes(), train, val)
    print(f"Pictures: {files.log_dir}/gradcam\nCurves:   tensorboard --logdir {Path(root, 'lightning_logs')}")


if __name__ == "__main__":
    main()
