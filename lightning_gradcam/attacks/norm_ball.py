"""Norm ball around every image that bounds an attack, intersected with the range of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lightning_gradcam.utils.numerics import expand_rows, safe_divide

Norm: TypeAlias = Literal["linf", "l2"]

NORMS: tuple[Norm, ...] = ("linf", "l2")


@dataclass(frozen=True)
class Ball:
    """Images ``(N, C, *spatial)`` in [0, 1] at a distance of at most ``eps``.

    Args:
        eps: The radius: the largest change of a pixel, or of an image's Euclidean norm, in units of the range [0, 1].
        norm: The norm of the distance, ``"linf"`` or ``"l2"``.
    """

    eps: float
    norm: Norm = "linf"

    def project(self, images: Tensor, points: Tensor) -> Tensor:
        """Project points into the ball around ``images``, and then into the range of pixels.

        >>> Ball(0.25).project(torch.full((1, 1, 2), 0.5), torch.tensor([[[0.0, 2.0]]]))
        tensor([[[0.2500, 0.7500]]])
        """
        delta = points - images
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            length = _compute_norm(delta)
            delta = delta * torch.where(length > self.eps, self.eps / length, 1)
        return (images + delta).clamp(0, 1)

    def compute_steepest_step(self, gradient: Tensor) -> Tensor:
        """Return the step of norm 1 with the largest gain: the gradient's sign, or the gradient divided by its norm."""
        if self.norm == "linf":
            return gradient.sign()
        return safe_divide(gradient, _compute_norm(gradient))

    def sample_start(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample a random point in the ball around every image, see `sample_shifts`."""
        return (images + self.sample_shifts(images, generator)).clamp(0, 1)

    def sample_shifts(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample random shifts: for L-inf uniform in the ball; for L2 in a uniform direction, with a uniform length.

        With a generator, they are sampled on the CPU, so that they are the same on every device.
        """
        device = torch.device("cpu") if generator is not None else like.device
        if self.norm == "linf":
            shift = torch.empty(like.shape, dtype=like.dtype, device=device).uniform_(
                -self.eps, self.eps, generator=generator
            )
        else:
            direction = torch.empty(like.shape, dtype=like.dtype, device=device).normal_(generator=generator)
            length = torch.empty_like(_compute_norm(direction)).uniform_(0, 1, generator=generator)
            shift = direction * (length / _compute_norm(direction) * self.eps)
        return shift.to(like.device)


def _compute_norm(delta: Tensor) -> Tensor:
    """Return the Euclidean norm of every image, ``(N, 1, ...)``."""
    norm: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return expand_rows(norm, delta)
