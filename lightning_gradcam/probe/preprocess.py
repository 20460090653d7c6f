"""Preprocessing of single images: resizing and normalization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lightning_gradcam.probe.normalization import Normalization


@dataclass(frozen=True)
class Preprocess:
    """Resizes an image and normalizes it for a model.

    Args:
        mean: Mean per channel, of pixels in [0, 1].
        std: Standard deviation per channel, above 0.
        size: ``(height, width)``, or one number for both. The image is resized to the smallest size that covers it, and
            its center is cropped. None keeps the image's size.

    Example:
        >>> import torch
        >>> half = Preprocess(mean=(0.5,), std=(0.5,), size=4)
        >>> half(torch.ones(1, 8, 12)).shape, float(half(torch.ones(1, 8, 12)).mean())
        (torch.Size([1, 4, 4]), 1.0)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        sides = () if self.size is None else (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        if len(sides) not in (0, 2) or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ValueError(f"Expected `size` to be a number above 0, (height, width) or None, but got {self.size!r}.")
        object.__setattr__(self, "size", sides or None)
        object.__setattr__(self, "mean", self.pixels.mean)
        object.__setattr__(self, "std", self.pixels.std)

    @property
    def pixels(self) -> Normalization:
        """The normalization without the resizing."""
        return Normalization(self.mean, self.std)

    def __call__(self, image: Tensor | Image.Image) -> Tensor:
        """Preprocess a PIL image, or ``(C, H, W)`` uint8 or float in [0, 1], to ``(C, height, width)``."""
        tensor: Tensor = F.to_dtype(F.pil_to_tensor(image) if isinstance(image, Image.Image) else image, scale=True)
        if isinstance(self.size, tuple):
            scale = max(side / length for side, length in zip(self.size, tensor.shape[-2:], strict=True))
            covering_size = [
                max(side, round(length * scale)) for side, length in zip(self.size, tensor.shape[-2:], strict=True)
            ]
            tensor = F.center_crop(F.resize(tensor, covering_size, antialias=True), list(self.size))
        return self.pixels.normalize(tensor[None])[0]


Preprocessing: TypeAlias = Preprocess | Normalization | Callable[[Any], Tensor]
"""The preprocessing of a single image, such as a torchvision transform."""


def preprocess_image(image: Tensor | Image.Image, preprocess: Preprocessing) -> Tensor:
    """Preprocess one image, a PIL image or pixels ``(C, *spatial)`` in [0, 1], and check the result."""
    if isinstance(preprocess, Normalization):
        preprocess = Preprocess(preprocess.mean, preprocess.std)
    if not callable(preprocess):
        raise TypeError(
            "Expected `preprocess` to be a Preprocess, a Normalization, or a callable of an image, but got "
            f"{type(preprocess).__name__}."
        )
    tensor = preprocess(image)
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.ndim < 2:
        description = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(
            f"Expected `preprocess` to return a float tensor (C, *spatial) of one image, but got {description}."
        )
    return tensor.as_subclass(Tensor)


def read_normalization(preprocess: Preprocessing | None) -> Normalization | None:
    """Read the normalization of a preprocessing; None if it has none, or several."""
    if isinstance(preprocess, Preprocess):
        return preprocess.pixels
    if preprocess is None or isinstance(preprocess, Normalization):
        return preprocess
    transforms = [preprocess, *getattr(preprocess, "transforms", ())]  # of Compose
    values = [(t.mean, t.std) for t in transforms if hasattr(t, "mean") and hasattr(t, "std")]
    return Normalization(*values[0]) if len(values) == 1 else None
