"""Methods on the same images, at an early layer, the last layer and the pixels: the figures of docs/methods.md.

python examples/methods.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import Trainer, seed_everything
from scenes import LitScenes, Scenes
from torch import nn
from torch.utils.data import DataLoader

from lightning_gradcam import Explanation, Normalization, Probe, explain
from lightning_gradcam.loggers import to_image
from lightning_gradcam.methods import EQUATIONS, METHODS
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.multi_map_sheet import MapRow, draw_rows
from lightning_gradcam.render.photos import restore_photos
from lightning_gradcam.render.sheet import Sheet

PIXELS = Normalization((0.56, 0.64, 0.58), (0.2, 0.16, 0.25))  # as `Scenes` normalizes
LAYERS = {"features": "last", "features.8": "early"}
"""The last layer, which the head pools, and a layer with a grid twice as fine, three layers before it."""


def train(epochs: int, images: int) -> nn.Module:
    """Train the CNN of `scenes` for a short time."""
    seed_everything(0)
    model = LitScenes()
    trainer = Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    trainer.fit(model, DataLoader(Scenes(images), batch_size=32, shuffle=True))
    return model.eval()


def draw(explanation: Explanation, layer: str, probe: Probe, data: Scenes) -> torch.Tensor:
    """Draw a figure of all methods at one layer, ``(3, height, width)`` uint8."""
    names = [key.removeprefix(f"{layer}/") for key in explanation.evidence]
    photos, _ = restore_photos(probe.images, PIXELS)
    sheet = Sheet.from_probe(probe, photos, data.classes)
    rows = [
        MapRow(name, explanation.evidence[f"{layer}/{name}"], explanation.map_status[f"{layer}/{name}"])
        for name in names
    ]
    grid = "×".join(map(str, rows[0].evidence.shape[1:]))
    heading = Heading(f"{layer} · {grid} · {len(rows)} methods of the label")
    return draw_rows(sheet, rows, explanation.logits, heading)


AT_PIXELS = [name for name, method in METHODS.items() if getattr(method, "requires", None) == "captum"]
"""Methods that captum computes; one of them has a layer."""


def draw_pixels(model: nn.Module, probe: Probe, data: Scenes, layer: str) -> torch.Tensor:
    """Draw a figure of Grad-CAM and all pixel attributions, ``(3, height, width)`` uint8."""
    names = ["gradcam", *AT_PIXELS]
    explanation = explain(model, probe, layers=layer, method=names, target="label")
    photos, _ = restore_photos(probe.images, PIXELS)
    sheet = Sheet.from_probe(probe, photos, data.classes)
    keys = {name: next(key for key in explanation.evidence if key.endswith(f"/{name}")) for name in names}
    rows = [MapRow(name, explanation.evidence[key], explanation.map_status[key]) for name, key in keys.items()]
    return draw_rows(sheet, rows, explanation.logits, Heading("input pixels · for the label"))


def main(epochs: int = 4, images: int = 800, root: str = "docs/images") -> None:
    """Train, explain, and write one figure per layer."""
    model, data = train(epochs, images), Scenes(6, first=100_000)
    pairs = [data[i] for i in range(len(data))]
    probe = Probe(torch.stack([image for image, _ in pairs]), labels=torch.tensor([label for _, label in pairs]))
    for layer, name in LAYERS.items():
        methods = [
            method for method in EQUATIONS if method != "cam" or name == "last"
        ]  # CAM needs a pooling after the layer
        explanation = explain(model, probe, layers=[layer], method=methods, target="label")
        path = Path(root, f"methods-{name}.jpg")
        to_image(draw(explanation, layer, probe, data)).save(path, quality=90)
        print(f"Figure: {path}")
    path = Path(root, "methods-pixels.jpg")
    to_image(draw_pixels(model, probe, data, "features.8")).save(path, quality=90)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
