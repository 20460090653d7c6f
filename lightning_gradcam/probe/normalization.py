"""Normalization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """How images became what the model takes: ``image = (pixel - mean) / std`` with pixels in [0, 1], per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"Expected as many means as standard deviations, but got {self.mean} and {self.std}.")
        if any(not s > 0 for s in self.std):
            raise ValueError(f"Expected standard deviations over 0, but got {self.std}.")

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels ``(N, C, *spatial)`` in [0, 1] to images as the model takes them."""
        mean, std = self._along_channels(pixels)
        return (pixels - mean) / std

    def restore(self, images: Tensor) -> Tensor:
        """Undo the normalisation of ``(N, C, *spatial)`` images; the result lies in [0, 1] where this is the right one.

        >>> Normalization((0.5,), (0.25,)).restore(torch.tensor([[[2.0, -2.0]]]))
        tensor([[[1., 0.]]])
        """
        mean, std = self._along_channels(images)
        return images * std + mean

    def _along_channels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (like.ndim - 2)
        mean, std = (
            torch.tensor(v, device=like.device, dtype=like.dtype).reshape(shape) for v in (self.mean, self.std)
        )
        return mean, std


Pixels = Normalization
"""The earlier name of `Normalization`, which stays."""
