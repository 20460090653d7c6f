"""The normalization of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """The normalization of images for a model: ``image = (pixel - mean) / std`` with pixels in [0, 1], per channel.

    Args:
        mean: Mean per channel.
        std: Standard deviation per channel, above 0.

    Raises:
        ValueError: The numbers of values differ, or a standard deviation is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"Expected one `mean` and one `std` per channel, but got {self.mean} and {self.std}.")
        if any(not s > 0 for s in self.std):
            raise ValueError(f"Expected standard deviations above 0, but got {self.std}.")

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalize pixels ``(N, C, *spatial)`` in [0, 1] for the model."""
        mean, std = self._expand_channels(pixels)
        return (pixels - mean) / std

    def restore(self, images: Tensor) -> Tensor:
        """Undo the normalization of ``(N, C, *spatial)`` images; the result lies in [0, 1] if it is the right one.

        >>> Normalization((0.5,), (0.25,)).restore(torch.tensor([[[2.0, -2.0]]]))
        tensor([[[1., 0.]]])
        """
        mean, std = self._expand_channels(images)
        return images * std + mean

    def _expand_channels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std as tensors that broadcast against images."""
        shape = (1, -1) + (1,) * (like.ndim - 2)
        mean, std = (
            torch.tensor(v, device=like.device, dtype=like.dtype).reshape(shape) for v in (self.mean, self.std)
        )
        return mean, std


Pixels = Normalization
"""An alias of `Normalization`, its earlier name."""
