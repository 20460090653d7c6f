"""How far an attack may go: a ball around every image, and the range of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Norm: TypeAlias = Literal["linf", "l2"]

NORMS: tuple[Norm, ...] = ("linf", "l2")


@dataclass(frozen=True)
class Ball:
    """Images ``(N, C, *spatial)`` in [0, 1] at a distance of at most ``eps``.

    Args:
        eps: The radius: the largest change of a pixel, or of an image's Euclidean norm, in units of the range [0, 1].
        norm: Which of them, ``"linf"`` or ``"l2"``.
    """

    eps: float
    norm: Norm = "linf"

    def project(self, images: Tensor, moved: Tensor) -> Tensor:
        """The place in the ball around ``images``, and in the range of pixels, nearest to where they moved.

        >>> Ball(0.25).project(torch.full((1, 1, 2), 0.5), torch.tensor([[[0.0, 2.0]]]))
        tensor([[[0.2500, 0.7500]]])
        """
        delta = moved - images
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            length = _length(delta)
            delta = delta * torch.where(length > self.eps, self.eps / length, 1)
        return (images + delta).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length one that gains most: the gradient's sign, or the gradient at length one."""
        if self.norm == "linf":
            return gradient.sign()
        length = _length(gradient)
        return gradient / torch.where(length > 0, length, 1)

    def start(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A random place in the ball, see `shifts`."""
        return (images + self.shifts(images, generator)).clamp(0, 1)

    def shifts(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Random shifts: for L-inf uniform in the ball; for L2 in a uniform direction, of a uniform length.

        Drawn on the CPU where there is a generator, so that its numbers are the same on every device.
        """
        where = torch.device("cpu") if generator is not None else like.device
        if self.norm == "linf":
            shift = torch.empty(like.shape, dtype=like.dtype, device=where).uniform_(
                -self.eps, self.eps, generator=generator
            )
        else:
            direction = torch.empty(like.shape, dtype=like.dtype, device=where).normal_(generator=generator)
            length = torch.empty_like(_length(direction)).uniform_(0, 1, generator=generator)
            shift = direction * (length / _length(direction) * self.eps)
        return shift.to(like.device)


def _length(delta: Tensor) -> Tensor:
    """The Euclidean norm of each row, ``(N, 1, ...)``."""
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length.reshape(-1, *[1] * (delta.ndim - 1))
