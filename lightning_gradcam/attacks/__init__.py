"""Adversarial attacks. They receive pixels in [0, 1], so that ``eps`` has the same unit for every model."""

from __future__ import annotations

from lightning_gradcam.attacks.apply import attack_probe, coerce_attack
from lightning_gradcam.attacks.gradient import FGSM, PGD
from lightning_gradcam.attacks.norm_ball import Ball
from lightning_gradcam.attacks.pixel_space import ATTACKS, Attack, PixelSpace, check_range
from lightning_gradcam.probe.probe import restore_pixels

__all__ = [
    "ATTACKS",
    "FGSM",
    "PGD",
    "Attack",
    "Ball",
    "PixelSpace",
    "attack_probe",
    "check_range",
    "coerce_attack",
    "restore_pixels",
]
