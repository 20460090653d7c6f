"""Gradient ascent on the loss that an attack maximizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.attacks.norm_ball import Ball
from lightning_gradcam.utils.numerics import expand_rows

Toward: TypeAlias = int | Literal["least_likely", "next"]
"""Class that a targeted attack moves towards: one for all, the clean image's least likely, or the label's successor."""

Loss: TypeAlias = Callable[[Tensor], Tensor]
"""Maps images to one loss each, ``(N,)``, which an attack maximizes."""


def ascend(
    loss: Loss, images: Tensor, start: Tensor, ball: Ball, steps: int, step_size: float, keep: str = "last"
) -> Tensor:
    """Ascend the loss in steps of equal length, and project every step into the ball and the range of pixels.

    Args:
        loss: Loss to maximize.
        images: ``(N, C, *spatial)`` in [0, 1], the centers of the ball.
        start: Starting points.
        ball: Bound on the distance to the images.
        steps: Number of steps.
        step_size: Length of a step, in the ball's norm.
        keep: ``"last"`` returns the last points, ``"best"`` for every image the point with the largest loss.
    """
    points, best = start, None
    for _ in range(steps):
        losses, gradient = compute_slope(loss, points)
        if keep == "best":
            best = select_better(best, points, losses)
        points = ball.project(images, points + step_size * ball.compute_steepest_step(gradient))
    return points if keep == "last" else select_better(best, points, compute_losses(loss, points))[0]


def compute_slope(loss: Loss, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return every image's loss ``(N,)``, and its gradient with respect to the image."""
    with torch.enable_grad():
        leaf = points.detach().clone().requires_grad_()
        losses = loss(leaf)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient


def compute_losses(loss: Loss, points: Tensor) -> Tensor:
    """Return every image's loss ``(N,)``, without grad."""
    with torch.no_grad():
        return loss(points)


def select_better(best: tuple[Tensor, Tensor] | None, points: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Select for every image the point with the larger loss.

    Args:
        best: Points and their losses so far; None before the first.
        points: New points ``(N, C, *spatial)``.
        losses: Their losses ``(N,)``.

    Returns:
        The selected points and their losses.
    """
    if best is None:
        return points, losses
    best_points, best_losses = best
    is_better = losses > best_losses
    selected = torch.where(expand_rows(is_better, points), points, best_points)
    return selected, torch.where(is_better, losses, best_losses)


def make_loss(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, toward: Toward | None = None) -> Loss:
    """Return the loss of an attack: the cross-entropy with the label, or minus that with the class to move towards."""
    least_likely = None
    if toward == "least_likely":
        with torch.no_grad():
            least_likely = model(images).argmin(1)

    def compute_loss(points: Tensor) -> Tensor:
        logits = model(points).float()
        if toward is None:
            return F.cross_entropy(logits, labels, reduction="none")
        classes = (labels + 1) % logits.shape[1] if toward == "next" else least_likely
        if classes is None:
            classes = torch.full_like(labels, int(toward))
        return -F.cross_entropy(logits, classes, reduction="none")

    return compute_loss
