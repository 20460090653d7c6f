"""Generated noisy volumes with one body each, or none: the body is the class, and its position is known.

    python examples/volumes.py

trains a small three-dimensional CNN to name the body; TensorBoard shows in which slices it learns to find it.
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
    """Return volume number ``index`` ``(1, *SIZE)``, its class, and the mask of its body ``SIZE``."""
    generator = torch.Generator().manual_seed(index)
    label = index % len(BODIES)
    axes = [torch.arange(length, dtype=torch.float32) for length in SIZE]
    center = [7 + (length - 15) * float(torch.rand((), generator=generator)) for length in SIZE]
    z, y, x = torch.meshgrid(*(axis - at for axis, at in zip(axes, center, strict=True)), indexing="ij")
    r = 4.5 + 1.5 * float(torch.rand((), generator=generator))
    radius = (y**2 + x**2).sqrt()
    shapes = {
        "ball": (z**2 + radius**2).sqrt() <= r,
        "box": torch.stack([z.abs(), y.abs(), x.abs()]).amax(0) <= 0.8 * r,
        "ring": (z.abs() <= 0.5 * r) & ((radius - 0.9 * r).abs() <= 0.25 * r),
        "nothing": torch.zeros(SIZE, dtype=torch.bool),
    }
    mask = shapes[BODIES[label]]
    fog = torch.rand(1, 1, 4, 5, 5, generator=generator)  # without meaning
    values = 0.3 * nn.functional.interpolate(fog, size=SIZE, mode="trilinear")[0]
    values += 0.06 * torch.randn(values.shape, generator=generator)
    return (values + 0.5 * mask).clamp(0, 1), label, mask


class Volumes(TensorDataset):
    """``count`` volumes and their classes."""

    classes = BODIES

    def __init__(self, count: int, first: int = 0) -> None:
        samples = [volume(first + index) for index in range(count)]
        super().__init__(
            torch.stack([values for values, _, _ in samples]), torch.tensor([label for _, label, _ in samples])
        )


class LitVolumes(LightningModule):
    """A small CNN: two stages, each of half the size, and a linear layer on the largest value of each channel."""

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
        """Return the logits of the bodies."""
        logits: Tensor = self.head(self.features(volumes).amax((2, 3, 4)))
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


def main(epochs: int = 6, volumes: int = 800, root: str = ".") -> None:
    """Train with the callback; a CSVLogger next to TensorBoard makes it write its figures as files, too."""
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
    print(f"Figures: {files.log_dir}/gradcam\nCurves:  tensorboard --logdir {Path(root, 'lightning_logs')}")


if __name__ == "__main__":
    main()
