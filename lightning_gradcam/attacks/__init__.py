"""Attacks: from a probe to an attacked probe. They see pixels in [0, 1], so that eps means pixels everywhere."""

from lightning_gradcam.attacks.attacked import attack_probe, coerce_attack, pixels_of
from lightning_gradcam.attacks.ball import Ball
from lightning_gradcam.attacks.gradient import FGSM, PGD
from lightning_gradcam.attacks.space import ATTACKS, Attack, PixelSpace, check_range

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
    "pixels_of",
]
