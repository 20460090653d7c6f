"""A step of adversarial training: attack the images, then compute a loss on the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
"""Maps a pixel-space model to the loss that an attack on it maximizes."""

Start: TypeAlias = Callable[[Tensor, Ball], Tensor]
"""``(images in [0, 1], ball) -> points in the ball``: the starting points of an attack."""

TEN_STEPS = PGD()
"""Ten steps of a quarter of the default ``eps`` for that image size, from a random start."""


@dataclass(frozen=True)
class Step:
    """Result of a training step.

    Args:
        loss: Scalar to minimize, float32.
        images: The attacked images ``(N, C, *spatial)``, as the model takes them.
        logits: Logits ``(N, K)`` of the attacked images, in the forward pass that is trained on.
        clean_logits: Logits ``(N, K)`` of the clean images, if the loss needs them.
        similarity: Similarity of clean and attacked maps, the mean over the images with both, if the loss needs it.
    """

    loss: Tensor
    images: Tensor
    logits: Tensor
    clean_logits: Tensor | None = None
    similarity: Tensor | None = None


class TrainingLoss(ABC):
    """A loss of adversarial training, called as ``loss(model, images, labels)``."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar; see `step`."""
        return self.step(model, images, labels).loss

    @abstractmethod
    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """Attack the images and return the loss with its intermediate results.

        Args:
            model: Called as ``model(images)``, returns an output with logits; a LightningModule passes ``self``.
            images: ``(N, C, *spatial)``, as the model takes them.
            labels: Classes ``(N,)``.

        Raises:
            ValueError: Images do not lie in [0, 1] without their normalization.
        """


def find_adversarial(
    model: nn.Module, images: Tensor, attack: PGD, objective: Objective, start: Start, pixels: Normalization | None
) -> Tensor:
    """Attack the images so as to maximize an objective; the model does not change.

    The model is in evaluation mode during the attack: BatchNorm uses its running statistics without updating them, and
    dropout is off. Starting points are sampled before that from PyTorch's global generator, in every step and for every
    image again.

    Args:
        model: Called as ``model(images)``.
        images: ``(N, C, *spatial)``, as the model takes them, without inference tensors (`to_trainable`).
        attack: Ball, steps, restarts and ``keep`` of the attack.
        objective: Loss to maximize.
        start: Starting points of every restart.
        pixels: Normalization of ``images``; None if they are pixels in [0, 1].

    Raises:
        ValueError: Images do not lie in [0, 1] without their normalization.
    """
    clean = restore_pixels(Probe(images.detach(), pixels=pixels))
    check_range(clean)
    clean = clean.clamp(0, 1)
    attack = attack.with_defaults(clean)
    ball = Ball(attack.eps or 0.0, attack.norm)
    # `isolated` restores the random state, so that starts sampled inside it would be the same in every step.
    starts = [start(clean, ball) for _ in range(attack.restarts)]
    with isolated(model), frozen(model):
        loss = objective(PixelSpace(model, pixels))
        attacked = select_highest(loss, clean, starts, ball, attack)
    return attacked if pixels is None else pixels.normalize(attacked)


def to_trainable(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return images and labels, with normal copies of inference tensors, which Lightning's validation creates."""
    probe = Probe(images, labels=labels).without_inference_tensors()
    return probe.images, labels if probe.labels is None else probe.labels


def sample_uniform(images: Tensor, ball: Ball) -> Tensor:
    """Sample starting points in the ball, see `Ball.sample_shifts`."""
    return ball.sample_start(images)


def start_at_images(images: Tensor, _ball: Ball) -> Tensor:
    """Return the images themselves as starting points."""
    return images


def to_float32(logits: Tensor) -> Tensor:
    """Convert half-precision logits to float32, for losses under mixed precision."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def check_attack(attack: object) -> None:
    """Check that the attack is a `PGD`.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(attack, PGD):
        raise TypeError(
            f"Expected `attack` to be a PGD, with new random starts in every step, but got {attack!r}. "
            "FGSM is `PGD(eps, steps=1, step_size=eps, random_start=False)`."
        )


def check_weight(name: str, value: float) -> None:
    """Check that a weight is not negative and not NaN.

    Raises:
        ValueError: It is.
    """
    if not value >= 0:
        raise ValueError(f"Expected `{name}` of at least 0, but got {value}.")
