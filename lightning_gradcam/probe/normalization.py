"""The normalization of images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

TOLERANCE = 0.02
"""The part of the range [0, 1] by which pixels may leave it: decoders and resizing overshoot a little."""


def find_range(images: Tensor) -> tuple[float, float]:
    """Return the lowest and the highest value. (Waits for the device.)"""
    low, high = torch.stack(images.aminmax()).tolist()
    return low, high


@dataclass(frozen=True)
class Normalization:
    """The normalization of images for a model: ``image = (pixel - mean) / std`` with pixels in [0, 1], per channel.

    Args:
        mean: Mean per channel.
        std: Standard deviation per channel, above 0.
        bands: The channels that figures show as red, green and blue, or one that they show as gray, counted from 0;
            None for images of one or three channels, and for the mean of all channels.

    Raises:
        ValueError: The numbers of values differ, a standard deviation is not above 0, or `bands` are not one or three
            channels.

    Example:
        >>> Normalization(bands=(3, 2, 1)).bands  # images that are not normalized
        (3, 2, 1)
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bands: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"Expected one `mean` and one `std` per channel, but got {self.mean} and {self.std}.")
        if any(not s > 0 for s in self.std):
            raise ValueError(f"Expected standard deviations above 0, but got {self.std}.")
        if self.bands is not None:
            object.__setattr__(self, "bands", tuple(int(band) for band in self.bands))
            if len(self.bands) not in (1, 3) or any(band < 0 for band in self.bands):
                raise ValueError(f"Expected `bands` of one or three channels, counted from 0, but got {self.bands}.")

    @property
    def is_identity(self) -> bool:
        """Whether images are pixels that were not normalized."""
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

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

    def fits(self, images: Tensor) -> bool:
        """Return whether undoing it gives pixels in [0, 1], and the images are not pixels already. (Waits.)"""
        if len(self.mean) not in (1, images.shape[1]):
            return False
        low, high = find_range(self.restore(images.float()))
        return low >= -TOLERANCE and high <= 1 + TOLERANCE and find_range(images)[0] < 0

    def _expand_channels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std as tensors that broadcast against images."""
        shape = (1, -1) + (1,) * (like.ndim - 2)
        mean, std = (
            torch.tensor(v, device=like.device, dtype=like.dtype).reshape(shape) for v in (self.mean, self.std)
        )
        return mean, std


Pixels = Normalization
"""An alias of `Normalization`, its earlier name."""
