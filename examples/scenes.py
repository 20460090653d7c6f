"""Generated landscapes with one object each: larger images than digits, no download, known masks.

    python examples/scenes.py

trains a small CNN to name the object; TensorBoard shows how it learns to find it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_gradcam import GradCAMCallback

SIZE = 128
DRAWN = 256  # drawn larger and then reduced, for smooth edges

Color = tuple[int, int, int]
Brush = Callable[[ImageDraw.ImageDraw, float, float, float, Color], None]


def balloon(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, color: Color) -> None:
    """Draw a hot-air balloon."""
    draw.ellipse((x - 0.8 * r, y - r, x + 0.8 * r, y + 0.6 * r), fill=color)
    draw.polygon([(x - 0.6 * r, y + 0.1 * r), (x + 0.6 * r, y + 0.1 * r), (x, y + 0.9 * r)], fill=color)
    draw.rectangle((x - 0.16 * r, y + 0.75 * r, x + 0.16 * r, y + r), fill=(110, 70, 40))


def house(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, color: Color) -> None:
    """Draw a house with a roof, a door and a window."""
    draw.rectangle((x - 0.75 * r, y - 0.1 * r, x + 0.75 * r, y + r), fill=(235, 225, 205))
    draw.polygon([(x - 0.95 * r, y - 0.1 * r), (x + 0.95 * r, y - 0.1 * r), (x, y - 0.95 * r)], fill=color)
    draw.rectangle((x - 0.5 * r, y + 0.35 * r, x - 0.1 * r, y + r), fill=(110, 70, 40))
    draw.rectangle((x + 0.2 * r, y + 0.2 * r, x + 0.55 * r, y + 0.55 * r), fill=(120, 170, 220))


def sailboat(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, color: Color) -> None:
    """Draw a boat with two sails."""
    hull = [(x - 0.9 * r, y + 0.5 * r), (x + 0.9 * r, y + 0.5 * r), (x + 0.55 * r, y + 0.95 * r)]
    draw.polygon([*hull, (x - 0.6 * r, y + 0.95 * r)], fill=(120, 75, 45))
    draw.polygon([(x + 0.05 * r, y - r), (x + 0.05 * r, y + 0.4 * r), (x + 0.8 * r, y + 0.4 * r)], fill=color)
    draw.polygon(
        [(x - 0.05 * r, y - 0.7 * r), (x - 0.05 * r, y + 0.4 * r), (x - 0.65 * r, y + 0.4 * r)], fill=(245,) * 3
    )


def pine(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, color: Color) -> None:
    """Draw a tree with three tiers, always in a dark color."""
    green = (20 + color[0] // 12, 80 + color[1] // 8, 45)
    draw.rectangle((x - 0.1 * r, y + 0.6 * r, x + 0.1 * r, y + r), fill=(90, 60, 35))
    for top, bottom, wide in ((-1.0, -0.2, 0.45), (-0.6, 0.3, 0.6), (-0.2, 0.7, 0.75)):
        draw.polygon([(x, y + top * r), (x - wide * r, y + bottom * r), (x + wide * r, y + bottom * r)], fill=green)


OBJECTS: dict[str, Brush] = {"balloon": balloon, "house": house, "sailboat": sailboat, "pine": pine}
PAINTS: list[Color] = [(214, 64, 53), (236, 164, 40), (84, 74, 170), (218, 90, 150), (40, 130, 170)]


def landscape(rng: random.Random) -> Image.Image:
    """Draw sky, hills, a meadow, and distractors: clouds, bushes and stones."""
    horizon = rng.uniform(0.45, 0.65) * DRAWN
    rows = np.linspace(0, 1, DRAWN)[:, None]
    sky = np.array([120 + rng.uniform(-25, 15), 175 + rng.uniform(-25, 15), 225]) * (1 - rows) + 235 * rows
    image = Image.fromarray(np.repeat(sky[:, None, :], DRAWN, 1).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    phase, wave = rng.uniform(0, 6), rng.uniform(0.015, 0.03)
    hill = [(x, horizon - 18 + 14 * math.sin(phase + wave * x)) for x in range(0, DRAWN + 8, 8)]
    draw.polygon([(0, DRAWN), *hill, (DRAWN, DRAWN)], fill=(128, 158, 128))
    draw.rectangle((0, horizon, DRAWN, DRAWN), fill=(138 + rng.randint(-12, 12), 176 + rng.randint(-12, 12), 98))
    for _ in range(rng.randint(2, 4)):
        x, y, r = rng.uniform(0, DRAWN), rng.uniform(0, horizon * 0.7), rng.uniform(10, 20)
        for shift in (-1.1, 0.0, 1.1):
            draw.ellipse((x + shift * r - r, y - 0.7 * r, x + shift * r + r, y + 0.7 * r), fill=(248, 248, 250))
    for _ in range(rng.randint(5, 9)):
        x, y, r = rng.uniform(0, DRAWN), rng.uniform(horizon + 5, DRAWN), rng.uniform(5, 13)
        fill = rng.choice([(96, 140, 70), (112, 150, 84), (150, 148, 140), (170, 166, 158)])
        draw.ellipse((x - 1.3 * r, y - 0.6 * r, x + 1.3 * r, y + 0.6 * r), fill=fill)
    return image


def scene(index: int) -> tuple[Image.Image, int, Image.Image]:
    """Return landscape number ``index``, its class, and the mask of its object; always the same."""
    rng = random.Random(index)
    label = index % len(OBJECTS)
    image = landscape(rng)
    r = rng.uniform(24, 40)
    geometry = (rng.uniform(r, DRAWN - r), rng.uniform(r, DRAWN - r), r, rng.choice(PAINTS))
    brush = list(OBJECTS.values())[label]
    brush(ImageDraw.Draw(image), *geometry)
    blank = Image.new("RGB", image.size, (1, 2, 3))
    brush(ImageDraw.Draw(blank), *geometry)
    mask = Image.fromarray((np.asarray(blank) != (1, 2, 3)).any(-1))
    grain = np.random.default_rng(index).normal(0, 7, (DRAWN, DRAWN, 1))
    textured = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    small = textured.filter(ImageFilter.GaussianBlur(0.5)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return small, label, mask.resize((SIZE, SIZE), Image.Resampling.NEAREST)


class Scenes(Dataset[tuple[Tensor, int]]):
    """``count`` landscapes, drawn on demand."""

    classes = tuple(OBJECTS)

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first
        self.transform = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.56, 0.64, 0.58], [0.2, 0.16, 0.25])]
        )
        self._cache: dict[int, tuple[Tensor, int]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index not in self._cache:
            image, label, _ = scene(self.first + index)
            self._cache[index] = (self.transform(image), label)
        return self._cache[index]


class LitScenes(LightningModule):
    """A small CNN: four stages, each of half the size, and a linear layer on the mean."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 96)
        self.features = nn.Sequential(
            *(
                layer
                for i, o in pairwise(widths)
                for layer in (nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            ),
            nn.Conv2d(96, 96, 3, padding=1, bias=False),
            nn.BatchNorm2d(96),
            nn.ReLU(),
        )
        self.head = nn.Linear(96, len(OBJECTS))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the objects."""
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
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


def main(epochs: int = 8, images: int = 1200, root: str = ".") -> None:
    """Train with the callback; a CSVLogger next to TensorBoard makes it write its figures as files, too."""
    seed_everything(0)
    files = CSVLogger(root, name="lightning_logs")
    trainer = Trainer(
        max_epochs=epochs,
        logger=[TensorBoardLogger(root, version=files.version), files],
        callbacks=[GradCAMCallback()],
        log_every_n_steps=10,
    )
    train = DataLoader(Scenes(images), batch_size=32, shuffle=True)
    val = DataLoader(Scenes(200, first=100_000), batch_size=50)
    trainer.fit(LitScenes(), train, val)
    print(f"Figures: {files.log_dir}/gradcam\nCurves:  tensorboard --logdir {Path(root, 'lightning_logs')}")


if __name__ == "__main__":
    main()
