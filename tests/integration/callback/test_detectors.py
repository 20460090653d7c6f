"""Detectors in training: batches of lists of images and of targets."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_gradcam import GradCAMCallback, explain
from lightning_gradcam.targets import BoxScore
from tests.helpers.detectors import Spots, spotted
from tests.helpers.lit import fit, weights


class Detects(LightningModule):
    """A detector of spots, which takes a list of images."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Spots(32)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return self.model(images)

    def training_step(self, batch, batch_idx):
        images, targets = batch
        assert len(images) == len(targets)
        return sum((self.model.body(image[None]).sum(1).amax() - 1) ** 2 for image in images)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx), batch_size=2)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def scenes():
    """Images of two sizes with a spot each, and the targets of their boxes, one more for each image."""
    for i in range(8):
        size = (32, 32) if i % 4 else (32, 48)
        image = spotted(size, [(8 * (i % 3), 8, 8, 16)])[0]
        yield image, {"boxes": torch.tensor([[8.0, 8.0, 24.0, 16.0]] * 2), "labels": torch.tensor([1, 2])}


def transpose(samples):
    return tuple(zip(*samples, strict=True))


@pytest.mark.parametrize("collate", [transpose, lambda samples: [list(column) for column in transpose(samples)]])
def test_detector_trained_on_lists_is_explained(tmp_path, collate):
    loader = DataLoader(list(scenes()), 2, collate_fn=collate)
    callback = GradCAMCallback(probe=3, on_error="raise")
    trained = weights(fit(tmp_path, [callback], make=Detects, train=loader, val=loader))
    assert trained == weights(fit(tmp_path, make=Detects, train=loader, val=loader))
    images = torch.stack([image for image, _ in scenes() if image.shape[-1] == 32][:3])
    probe = callback.monitor.probe
    assert torch.equal(probe.images, images)
    assert probe.labels is None
    assert callback.monitor.tracker.snapshots == 3
    explained = explain(Spots(32), images, target=BoxScore())
    assert callback.monitor.sharded_explainer.explainer.layers[0].name.removeprefix("model.") in explained.layers
