"""Landscapes with two objects each, a small U-Net that segments them, and the evidence that it uses.

python examples/segmentation.py
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from pytorch_lightning import LightningModule, Trainer, seed_everything
from scenes import DRAWN, OBJECTS, PAINTS, SIZE, landscape
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_gradcam import Normalization, Probe, explain
from lightning_gradcam.loggers import to_image
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.multi_map_sheet import MapRow, draw_rows
from lightning_gradcam.render.photos import restore_photos
from lightning_gradcam.render.sheet import Sheet

CLASSES = ("background", *OBJECTS)
PIXELS = Normalization((0.56, 0.64, 0.58), (0.2, 0.16, 0.25))


def scene(index: int) -> tuple[Image.Image, Image.Image]:
    """Return landscape number ``index`` with two objects of different classes, and the class of each pixel."""
    rng = random.Random(index)
    image, mask = landscape(rng), Image.new("L", (DRAWN, DRAWN))
    for left, label in enumerate(rng.sample(range(len(OBJECTS)), 2)):
        r = rng.uniform(26, 38)
        geometry = (rng.uniform(r, DRAWN / 2 - r) + left * DRAWN / 2, rng.uniform(r, DRAWN - r), r, rng.choice(PAINTS))
        brush = list(OBJECTS.values())[label]
        brush(ImageDraw.Draw(image), *geometry)
        blank = Image.new("RGB", image.size, (1, 2, 3))
        brush(ImageDraw.Draw(blank), *geometry)
        mask.paste(label + 1, mask=Image.fromarray((np.asarray(blank) != (1, 2, 3)).any(-1)))
    grain = np.random.default_rng(index).normal(0, 7, (DRAWN, DRAWN, 1))
    textured = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    small = (SIZE, SIZE)
    return textured.resize(small, Image.Resampling.LANCZOS), mask.resize(small, Image.Resampling.NEAREST)


class Masked(Dataset[tuple[Tensor, Tensor]]):
    """``count`` landscapes and their masks, drawn on demand."""

    classes = CLASSES

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}
        self.transform = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(PIXELS.mean), list(PIXELS.std))]
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in self._cache:
            image, mask = scene(self.first + index)
            self._cache[index] = (self.transform(image), torch.from_numpy(np.array(mask, np.int64)))
        return self._cache[index]


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution, of half the resolution for a stride of 2."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class LitUNet(LightningModule):
    """A U-Net: down in four steps, a bottom that sees most of the image, and up again with skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(3, 16, 2), block(16, 32, 2), block(32, 64, 2), block(64, 96, 2)])
        self.bottom = nn.Sequential(block(96, 96), block(96, 96))
        self.up = nn.ModuleList([block(96 + 64, 64), block(64 + 32, 32), block(32 + 16, 24)])
        self.head = nn.Conv2d(24, len(CLASSES), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes ``(N, K, H, W)``."""
        skips, x = [], images
        for step in self.down:
            x = step(x)
            skips.append(x)
        x = self.bottom(x)
        for step, skip in zip(self.up, skips[-2::-1], strict=True):
            x = step(torch.cat([nn.functional.interpolate(x, size=skip.shape[-2:]), skip], 1))
        return nn.functional.interpolate(self.head(x), size=images.shape[-2:], mode="bilinear")

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the cross-entropy of the pixels."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=4e-3)


def draw(model: nn.Module, probe: Probe) -> Tensor:
    """Draw the evidence for the largest object of each image, at both layers, ``(3, height, width)``."""
    layers = {"bottom": "bottom", "up.2": "before the scores"}
    # The gradient of the scores of some pixels varies over the map, so do not average it as Grad-CAM does.
    explanation = explain(model, probe, layers=list(layers), target="label", method="hirescam")
    photos, _ = restore_photos(probe.images, PIXELS)
    sheet = Sheet.from_probe(probe, photos, CLASSES)
    if explanation.region is not None and explanation.classes is not None:
        sheet = sheet.with_region(explanation.region, explanation.classes)
    rows = [MapRow(name, explanation.evidence[layer], explanation.map_status[layer]) for layer, name in layers.items()]
    heading = Heading("U-Net · HiResCAM of the label's pixels, which are outlined")
    return draw_rows(sheet, rows, explanation.logits, heading)


def main(epochs: int = 5, images: int = 500, root: str = "docs/images") -> None:
    """Train, explain, and write the figure."""
    seed_everything(0)
    model, data = LitUNet(), Masked(6, first=100_000)
    trainer = Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    trainer.fit(model, DataLoader(Masked(images), batch_size=16, shuffle=True))
    pairs = [data[i] for i in range(len(data))]
    probe = Probe(torch.stack([image for image, _ in pairs]), labels=torch.stack([mask for _, mask in pairs]))
    with torch.no_grad():
        accuracy = (model.eval()(probe.images).argmax(1) == probe.labels).float().mean()
    path = Path(root, "segmentation.jpg")
    to_image(draw(model, probe)).save(path, quality=90)
    print(f"Pixel accuracy: {accuracy:.1%}\nFigure: {path}")


if __name__ == "__main__":
    main()
