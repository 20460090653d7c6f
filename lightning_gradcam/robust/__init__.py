"""Adversarial training: losses that a ``training_step`` returns in one line."""

from __future__ import annotations

from typing import TypeAlias

from lightning_gradcam.robust.consistency import ConsistencyLoss
from lightning_gradcam.robust.losses import FastFGSMLoss, PGDLoss, TRADESLoss
from lightning_gradcam.robust.step import Step

AdversarialLoss: TypeAlias = PGDLoss | FastFGSMLoss | TRADESLoss | ConsistencyLoss
"""Any of these losses: the type of an argument that LightningCLI builds."""

__all__ = ["AdversarialLoss", "ConsistencyLoss", "FastFGSMLoss", "PGDLoss", "Step", "TRADESLoss"]
