"""Up the loss: what an attack makes larger, and the steps that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.attacks.norm_ball import Ball

Toward: TypeAlias = int | Literal["least_likely", "next"]
"""The class that a targeted attack moves towards: one for all, the clean image's least likely, or the label's next."""

Loss: TypeAlias = Callable[[Tensor], Tensor]
"""Images to one loss each, ``(N,)``: what an attack makes larger."""


def ascend(
    loss: Loss, images: Tensor, start: Tensor, ball: Ball, steps: int, step_size: float, keep: str = "last"
) -> Tensor:
    """Steps of the same length up the loss, none leaving the ball or the range of pixels.

    Args:
        loss: What is made larger.
        images: ``(N, C, *spatial)`` in [0, 1], the ball's centres.
        start: Where to begin.
        ball: How far to go.
        steps: How many.
        step_size: Their length, in the ball's norm.
        keep: ``"last"`` returns the place where the steps end, ``"best"`` the one with the largest loss on the way.
    """
    place, found = start, None
    for _ in range(steps):
        values, gradient = compute_slope(loss, place)
        if keep == "best":
            found = select_better(found, place, values)
        place = ball.project(images, place + step_size * ball.steepest(gradient))
    return place if keep == "last" else select_better(found, place, compute_losses(loss, place))[0]


def compute_slope(loss: Loss, place: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's loss ``(N,)``, and its gradient in the image."""
    with torch.enable_grad():
        leaf = place.detach().clone().requires_grad_()
        values = loss(leaf)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient


def compute_losses(loss: Loss, place: Tensor) -> Tensor:
    """Each image's loss ``(N,)``."""
    with torch.no_grad():
        return loss(place)


def select_better(found: tuple[Tensor, Tensor] | None, place: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Per image, the place with the larger loss, and that loss."""
    if found is None:
        return place, values
    rises = values > found[1]
    return torch.where(rises.reshape(-1, *[1] * (place.ndim - 1)), place, found[0]), torch.where(
        rises, values, found[1]
    )


def make_loss(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, toward: Toward | None = None) -> Loss:
    """The loss of an attack: the cross-entropy with the label, or minus that with the class to move towards."""
    least = None
    if toward == "least_likely":
        with torch.no_grad():
            least = model(images).argmin(1)

    def loss(place: Tensor) -> Tensor:
        logits = model(place).float()
        if toward is None:
            return F.cross_entropy(logits, labels, reduction="none")
        chosen = (labels + 1) % logits.shape[1] if toward == "next" else least
        if chosen is None:
            chosen = torch.full_like(labels, int(toward))
        return -F.cross_entropy(logits, chosen, reduction="none")

    return loss
