"""Regimes of gradients: optimizers, precision, accumulation, clipping, schedules, custom steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from tests.helpers.lit import Bars, Lit, loader
from tests.regimes.regime import Regime


def with_optimizer(optimizer: Callable[..., Any], **kwargs: Any) -> type[Lit]:
    """Return a `Lit` with another optimizer."""

    class WithOptimizer(Lit):
        def configure_optimizers(self):
            return optimizer(self.parameters(), **kwargs)

    return WithOptimizer


def with_schedule(scheduler: Callable[..., Any], **config: Any) -> type[Lit]:
    """Return a `Lit` with a learning rate schedule."""

    class Scheduled(Lit):
        def configure_optimizers(self):
            optimizer = SGD(self.parameters(), lr=0.1, momentum=0.9)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler(optimizer), **config}}

    return Scheduled


class Manual(Lit):
    """A module with two optimizers, stepped in turn; gradients stay in between."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.loss(batch))
        optimizer = self.optimizers()[(batch_idx + 1) % 2]
        optimizer.step()
        optimizer.zero_grad()

    def configure_optimizers(self):
        return SGD(self.features.parameters(), lr=0.1), Adam(self.head.parameters())


class KeepsGradients(Lit):
    """A module that halves gradients instead of dropping them: a running average over all batches."""

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)


class StepsInBackward(Lit):
    """A module whose weights are updated as soon as they have their gradient."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.loss(batch).backward()

    def configure_optimizers(self):
        for parameter in self.parameters():
            parameter.register_post_accumulate_grad_hook(self.take_step)

    @staticmethod
    def take_step(parameter):
        parameter.data.add_(parameter.grad, alpha=-0.1)
        parameter.grad = None


def plain_images() -> dict[str, Any]:
    """Return a given probe in float32, whatever the precision of the run."""
    data = Bars(4, seed=3)
    return {"probe": (torch.stack([data[i][0] for i in range(4)]), data.labels)}


def window(val_check_interval: int = 1) -> dict[str, Any]:
    return {"accumulate_grad_batches": 3, "val_check_interval": val_check_interval}


GPU = "" if torch.cuda.is_available() else "needs a GPU"

ROWS = [
    Regime("plain SGD", "no state but the weights", "hooks", model=with_optimizer(SGD, lr=0.1)),
    Regime("momentum", "a moment per weight", "torch random state", model=with_optimizer(SGD, lr=0.1, momentum=0.9)),
    Regime("Adam", "two moments per weight", "torch random state", model=with_optimizer(Adam, lr=0.01)),
    Regime("AdamW, fused", "one fused kernel", "torch random state", model=with_optimizer(AdamW, lr=0.01, fused=True)),
    Regime("LBFGS", "several passes per step", "torch random state", model=with_optimizer(LBFGS, lr=0.1, max_iter=3)),
    Regime("gradients averaged", "`zero_grad` replaced", "gradients", model=KeepsGradients, val=None, looks=2),
    Regime("manual optimization", "two optimizers, stepped in turn", "gradients", model=Manual, val=None, looks=2),
    Regime(
        "steps in backward", "hooks on weights take the step", "gradients",
        model=StepsInBackward, tolerates="`LightningModule.configure_optimizers` returned `None`",
    ),
    Regime("accumulation", "validations inside the accumulation window", "gradients", trainer=window(), looks=9),
    Regime("accumulation of an epoch", "several batches, one step", "moments", trainer=window(2), looks=5),
    Regime(
        "clipping by norm", "all gradients count", "gradients",
        trainer={"gradient_clip_val": 0.1}, val=None, looks=2,
    ),
    Regime(
        "clipping by value", "each gradient counts", "gradients",
        trainer={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, val=None, looks=2,
    ),
    Regime("bf16-mixed", "autocast, with its cache of weights", "autocast cache", trainer={"precision": "bf16-mixed"}),
    Regime(
        "16-mixed", "autocast and a gradient scaler", "autocast cache",
        trainer={"precision": "16-mixed", "accelerator": "gpu", "devices": 1}, skip=GPU,
    ),
    Regime(
        "bf16-true", "weights in half precision; a given probe in float32", "precision",
        trainer={"precision": "bf16-true"}, monitor=plain_images,
    ),
    Regime(
        "64-true", "weights in double precision; a given probe in float32", "precision",
        trainer={"precision": "64-true"}, monitor=plain_images,
    ),
    Regime(
        "learning rate per step", "a schedule of fixed length", "torch random state",
        model=with_schedule(lambda o: OneCycleLR(o, 0.2, total_steps=9), interval="step"),
    ),
    Regime(
        "learning rate on plateau", "waits for `val_loss`", "torch random state",
        model=with_schedule(lambda o: ReduceLROnPlateau(o, patience=0, threshold=10.0), monitor="val_loss"),
        trainer={"max_epochs": 4}, looks=5,
    ),
    Regime(
        "deterministic", "PyTorch raises an error for nondeterministic operations", "torch random state",
        trainer={"deterministic": True},
    ),
    Regime("anomaly detection", "backward passes are checked", "torch random state", trainer={"detect_anomaly": True}),
    Regime(
        "no inference mode", "validation runs under `no_grad` instead", "hooks", trainer={"inference_mode": False},
        val=lambda: loader(9, 3, seed=1, shuffle=True), tolerates="Your `val_dataloader`'s sampler has shuffling",
    ),
]  # fmt: skip
