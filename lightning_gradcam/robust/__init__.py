"""Adversarial training: losses that a ``training_step`` returns in one line."""

from lightning_gradcam.robust.consistency import ConsistencyLoss
from lightning_gradcam.robust.losses import FastFGSMLoss, PGDLoss, TRADESLoss
from lightning_gradcam.robust.step import Step

__all__ = ["ConsistencyLoss", "FastFGSMLoss", "PGDLoss", "Step", "TRADESLoss"]
