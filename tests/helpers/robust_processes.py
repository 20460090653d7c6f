"""Runs in several processes, as a script: `test_robust` starts one for each and reads the weights that it leaves."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from lightning_gradcam import PGD, Normalization
from lightning_gradcam.robust import ConsistencyLoss, PGDLoss, TRADESLoss
from tests.helpers.lit import Bars

NORM = Normalization((0.4,) * 3, (0.25,) * 3)
ATTACK = PGD(0.05, 2, random_start=False)
LOSSES = {
    "PGDLoss": PGDLoss(ATTACK, NORM),
    "TRADESLoss": TRADESLoss(PGD(0.05, 2), 6.0, NORM),
    "ConsistencyLoss": ConsistencyLoss(ATTACK, 5.0, "auto", NORM),
}


class Robust(LightningModule):
    """Without what sees a whole batch, such as BatchNorm: two halves are trained on as the whole is."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(8 * 64, 3),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, _index: int) -> Tensor:
        return self.loss(self, *batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def weights_after(loss: Any, rank: int | None) -> dict[str, Tensor]:
    """Two steps over 12 images each; of two processes, each has every second image of them."""
    seed_everything(0)
    module = Robust(loss)
    data = Bars(24)
    mine = range(24) if rank is None else range(rank, 24, 2)
    many = {} if rank is None else {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **many,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Subset(data, mine), 12 if rank is None else 6))
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


if __name__ == "__main__":
    here = int(os.environ["RANK"])
    torch.save({name: weights_after(loss, here) for name, loss in LOSSES.items()}, Path(sys.argv[1], f"{here}.pt"))
