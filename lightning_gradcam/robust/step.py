"""One step of adversarial training: images are attacked, and then the model is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.attacks import PGD, Ball, PixelSpace, restore_pixels
from lightning_gradcam.attacks.ascent import Loss
from lightning_gradcam.attacks.gradient import select_highest
from lightning_gradcam.attacks.pixel_space import check_range
from lightning_gradcam.capture.isolation import frozen, isolated
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe

Objective: TypeAlias = Callable[[Callable[[Tensor], Tensor]], Loss]
"""From a pixel-space model to what the attack on it makes larger."""

Start: TypeAlias = Callable[[Tensor, Ball], Tensor]
"""``(images in [0, 1], ball) -> a place in the ball``: where an attack begins."""


TEN_STEPS = PGD()
"""Ten steps of a quarter of what is usual for images of that size, from a random start."""


@dataclass(frozen=True)
class Step:
    """What one training step came to.

    Args:
        loss: Scalar, float32, to be minimised.
        images: The attacked images ``(N, C, *spatial)``, as the model takes them.
        logits: ``(N, K)`` of the attacked images, in the pass that is trained on.
        clean_logits: ``(N, K)`` of the clean images, where the loss needs these.
        similarity: Of clean and attacked maps, the mean over the images that have both; where the loss needs it.
    """

    loss: Tensor
    images: Tensor
    logits: Tensor
    clean_logits: Tensor | None = None
    similarity: Tensor | None = None


def find_adversarial(
    model: nn.Module, images: Tensor, attack: PGD, objective: Objective, start: Start, pixels: Normalization | None
) -> Tensor:
    """The images where the objective is largest, as far as the attack finds it; the model is left as it was found.

    The model evaluates meanwhile: BatchNorm uses, and keeps, its running statistics, and dropout is off. Starts are
    drawn before, from PyTorch's global generator: anew in every step, for each image on its own.

    Args:
        model: Called as ``model(images)``.
        images: ``(N, C, *spatial)``, as the model takes them; `to_trainable` ones.
        attack: The ball, the steps, and what is kept.
        objective: What is made larger.
        start: Where each of the attack's restarts begins.
        pixels: The normalisation of ``images``; None where they are pixels in [0, 1].

    Raises:
        ValueError: Images do not lie in [0, 1] without their normalisation.
    """
    clean = restore_pixels(Probe(images.detach(), pixels=pixels))
    check_range(clean)
    clean = clean.clamp(0, 1)
    settled = attack.settled(clean)
    ball = Ball(settled.eps or 0.0, attack.norm)
    starts = [start(clean, ball) for _ in range(attack.restarts)]  # inside of `isolated` every draw is the same
    with isolated(model), frozen(model):
        loss = objective(PixelSpace(model, pixels))
        place = select_highest(loss, clean, starts, ball, settled)
    return place if pixels is None else pixels.normalize(place)


def to_trainable(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Both, or copies where they were made in inference mode, as in Lightning's validation: autograd takes no such."""
    probe = Probe(images, labels=labels).without_inference_tensors()
    return probe.images, labels if probe.labels is None else probe.labels


def sample_uniform(images: Tensor, ball: Ball) -> Tensor:
    """Anywhere in the ball, see `Ball.shifts`."""
    return ball.start(images)


def start_at_images(images: Tensor, _ball: Ball) -> Tensor:
    """Where the images are."""
    return images


def to_float32(logits: Tensor) -> Tensor:
    """In at least float32, for losses under mixed precision."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def check_attack(attack: object) -> None:
    """Raise a TypeError where the attack is not one whose steps are known here."""
    if not isinstance(attack, PGD):
        raise TypeError(
            f"Expected `attack` to be a PGD, whose starts are drawn anew in every step, but got {attack!r}. "
            "FGSM is `PGD(eps, steps=1, step_size=eps, random_start=False)`."
        )


def check_weight(name: str, value: float) -> None:
    """Raise a ValueError where a weight is negative or no number."""
    if not value >= 0:
        raise ValueError(f"Expected `{name}` of at least 0, but got {value}.")
