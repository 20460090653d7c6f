"""Regimes with other callbacks, before or after ours."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningDataModule, callbacks
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from torch.nn import functional
from torch.optim import SGD

from lightning_gradcam import SmoothGrad
from tests.helpers.lit import Lit, loader
from tests.regimes.modules import CountsInEvaluation, WithoutDropout
from tests.regimes.regime import Regime

NO_EMA = "" if hasattr(callbacks, "EMAWeightAveraging") else "this Lightning has no EMAWeightAveraging yet"


def ruthless(model, images, labels):
    """An attack that trains the model on the way, as far as it can."""
    model.train()
    leaf = (images + 0.01 * torch.rand_like(images)).requires_grad_()
    functional.cross_entropy(model(leaf), labels).backward()
    return (images + 0.05 * leaf.grad.sign()).clamp(0, 1)


class Backbone(Lit):
    """A model whose feature extractor a callback freezes at first."""

    def __init__(self):
        super().__init__()
        self.backbone = self.features

    def configure_optimizers(self):
        return SGD(filter(lambda p: p.requires_grad, self.parameters()), lr=0.1)


class Sized(LightningDataModule):
    """A datamodule whose batch size a finder can change."""

    batch_size = 2

    def train_dataloader(self):
        return loader(12, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return loader(9, self.batch_size, seed=1)


class Tuned(Lit):
    """A module with the attributes that finders set."""

    lr = 0.01

    def configure_optimizers(self):
        return SGD(self.parameters(), lr=self.lr)


ROWS = [
    Regime(
        "attack in each snapshot", "a custom attack draws random numbers and calls `backward`", "attack",
        monitor=lambda: {"attack": ruthless},
    ),
    Regime(
        "gradient at the pixels", "backward through all layers, with validations inside the window",
        "gradients at pixels", monitor=lambda: {"method": ["saliency", "guided_backprop"]},
        trainer={"accumulate_grad_batches": 4, "val_check_interval": 1}, looks=9,
    ),
    Regime(
        "noise at the pixels", "a snapshot draws random numbers itself", "torch random state",
        model=WithoutDropout, monitor=lambda: {"method": SmoothGrad(2)},
    ),
    Regime(
        "EMA before it", "snapshots explain the weights in training", "buffers",
        model=CountsInEvaluation, before=lambda: [callbacks.EMAWeightAveraging(decay=0.5)], skip=NO_EMA,
    ),
    Regime(
        "EMA after it", "snapshots explain the averaged weights", "buffers",
        model=CountsInEvaluation, after=lambda: [callbacks.EMAWeightAveraging(decay=0.5)], skip=NO_EMA,
    ),
    Regime(
        "SWA", "an average of weights, with new BatchNorm statistics", "hooks",
        before=lambda: [StochasticWeightAveraging(0.01, swa_epoch_start=1)], trainer={"max_epochs": 3}, looks=5,
        tolerates="Swapping scheduler|Detected call of `lr_scheduler.step",
    ),
    Regime(
        "backbone finetuning", "a part is frozen at first, and trained later", "graph", model=Backbone,
        before=lambda: [BackboneFinetuning(1, backbone_initial_lr=0.01, train_bn=False)],
        trainer={"max_epochs": 3}, looks=4,
    ),
    Regime(
        "pruning", "weights are computed from weights and masks", "attributes restored",
        before=lambda: [ModelPruning("l1_unstructured", amount=0.2)],
    ),
    Regime(
        "accumulation schedule", "a window of one batch, then of four", "moments",
        before=lambda: [GradientAccumulationScheduler({0: 1, 1: 4})], trainer={"val_check_interval": 1}, looks=9,
    ),
    Regime(
        "learning rate finder", "trains, then restores the start", "empty state", model=Tuned,
        before=lambda: [LearningRateFinder(num_training_steps=3, early_stop_threshold=None)],
    ),
    Regime(
        "batch size finder", "trains, then restores the start", "empty state", model=Tuned,
        before=lambda: [BatchSizeFinder(max_trials=1, steps_per_trial=2)],
        train=Sized, val=None,
    ),
    Regime(
        "early stopping and checkpoints", "monitors of `val_loss`", "every n",
        monitor=lambda: {"every_n_epochs": 3}, trainer={"max_epochs": 9, "enable_checkpointing": True}, looks=3,
        after=lambda: [EarlyStopping("val_loss", patience=2, min_delta=9.0), ModelCheckpoint(monitor="val_loss"),
                       LearningRateMonitor()],
    ),
    Regime("two callbacks", "two tags in one run", "tag", tags=("gradcam", "again")),
]  # fmt: skip
