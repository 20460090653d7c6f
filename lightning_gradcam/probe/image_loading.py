"""From what people have (arrays, PIL images, file names, tensors) to a probe of images as the model takes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe

One: TypeAlias = "Tensor | np.ndarray[Any, Any] | Image.Image | str | os.PathLike[str]"
Images: TypeAlias = "One | Sequence[One] | Probe"
"""What `explain` takes: one image or several, see `as_probe`."""

_GREY, _COLOURED = ("L", "1", "LA"), ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
_CONVOLUTIONS = ((nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3))


@dataclass(frozen=True)
class Preprocess:
    """Makes what a model takes of an image: its size, then its normalisation.

    Args:
        mean: Per channel, of pixels in [0, 1].
        std: Likewise.
        size: ``(height, width)``, or one number for both: the image is made as small, or as large, as still covers it,
            and the middle is cut out. None leaves its size alone.

    Example:
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
            raise ValueError(f"Expected `size` to be a number over 0, (height, width) or None, but got {self.size!r}.")
        object.__setattr__(self, "size", sides or None)
        object.__setattr__(self, "mean", self.pixels.mean)
        object.__setattr__(self, "std", self.pixels.std)

    @property
    def pixels(self) -> Normalization:
        """The normalisation alone."""
        return Normalization(self.mean, self.std)

    def __call__(self, image: Tensor | Image.Image) -> Tensor:
        """A PIL image, or ``(C, H, W)`` uint8 or float in [0, 1], to ``(C, height, width)`` as the model takes it."""
        tensor: Tensor = F.to_dtype(F.pil_to_tensor(image) if isinstance(image, Image.Image) else image, scale=True)
        if isinstance(self.size, tuple):
            scale = max(side / of for side, of in zip(self.size, tensor.shape[-2:], strict=True))
            covering = [max(side, round(of * scale)) for side, of in zip(self.size, tensor.shape[-2:], strict=True)]
            tensor = F.center_crop(F.resize(tensor, covering, antialias=True), list(self.size))
        return self.pixels.normalize(tensor[None])[0]


Preprocessing: TypeAlias = Preprocess | Normalization | Callable[[Any], Tensor]
"""How an image becomes what the model takes: a transform of torchvision, or made from mean, std and size."""


def as_probe(images: Images, model: nn.Module | None = None, preprocess: Preprocessing | None = None) -> Probe:
    """Images of any kind as a probe of ordinary tensors, see `Probe.without_inference_tensors`.

    Args:
        images: A `Probe`; a batch, which is a tensor ``(N, C, *spatial)`` or an array ``(N, H, W, C)``; one image, or a
            list of images, each of which is a tensor ``(C, *spatial)``, an array ``(H, W, C)`` or ``(H, W)`` of uint8
            or of floats in [0, 1], a PIL image, or the name of a file.
        model: Tells, by its convolutions, whether a tensor is one image or a batch, and whether images are grey.
        preprocess: Called with each image: PIL, where it comes so or as uint8, else a tensor ``(C, *spatial)`` of
            pixels in [0, 1]. Without, tensors are what the model takes, and all else becomes pixels in [0, 1].

    Raises:
        TypeError: They are of no known kind.
        ValueError: What they mean cannot be told: floats that are no pixels, a PIL mode without a known range, images
            of several sizes.
    """
    if isinstance(images, Probe):
        if preprocess is not None:
            raise ValueError("Expected no `preprocess` beside a Probe, whose images are as the model takes them.")
        return images.without_inference_tensors()
    sides, channels = _convolutions(model)
    if isinstance(images, Tensor) and preprocess is None:
        return Probe(images[None] if images.ndim - 1 == sides else images).without_inference_tensors()
    given = [_opened(image, channels) for image in _each(images, sides)]
    if preprocess is None:
        made = [image if isinstance(image, Tensor) else to_pixels(image) for image in given]
    else:
        made = [_preprocessed(image, preprocess) for image in given]
    sizes = sorted({tuple(image.shape) for image in made})
    if len(sizes) > 1:
        raise ValueError(
            f"Expected images of one size, but got {' and '.join(map(str, sizes[:3]))}. Pass a `preprocess` that "
            "resizes: `Preprocess(mean, std, size=224)`, or a transform of torchvision."
        )
    tensors = any(isinstance(image, Tensor) for image in _each(images, sides))
    pixels = Normalization((0.0,), (1.0,)) if preprocess is None and not tensors else _pixels_of(preprocess)
    return Probe(
        torch.stack([image.to(_device(model, image)) for image in made]), pixels=pixels
    ).without_inference_tensors()


def to_pixels(image: Any) -> Tensor:
    """One image of any kind as pixels ``(C, *spatial)`` in [0, 1].

    Raises:
        TypeError: It is of no known kind.
        ValueError: Its range cannot be told.

    >>> to_pixels(np.full((2, 3, 1), 255, np.uint8)).shape
    torch.Size([1, 2, 3])
    """
    image = _opened(image, None)
    if isinstance(image, Image.Image):
        image = F.pil_to_tensor(image)
    assert isinstance(image, Tensor)
    if image.is_floating_point():
        low, high = torch.stack(image.aminmax()).tolist()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"Expected pixels in [0, 1], or uint8 ones in 0..255, but got floats from {low:.3g} to {high:.3g}. "
                "Divide by 255; or, where they are normalised as the model takes them, pass a tensor."
            )
        return image
    pixels: Tensor = F.to_dtype(image, scale=True)
    return pixels


def _each(images: Any, sides: int | None) -> list[Any]:
    """The single images in what was given."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    if isinstance(images, Tensor):
        return [images] if images.ndim - 1 == sides else list(images)
    if isinstance(images, np.ndarray):
        return [images] if images.ndim < 4 else list(images)
    if isinstance(images, Sequence) and images:
        return list(images)
    what = f"an empty {type(images).__name__}" if isinstance(images, Sequence) else type(images).__name__
    raise TypeError(
        "Expected a tensor of shape (N, C, *spatial) or (C, *spatial), an array (H, W, C), a PIL image, the name of a "
        f"file, a list of these, or a Probe, but got {what}. For a DataLoader, take one batch's images."
    )


def _opened(image: Any, channels: int | None) -> Tensor | Image.Image:
    """A tensor ``(C, *spatial)``, or a PIL image, which is grey or RGB."""
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(f"Expected images of uint8 or floats, but got {image.dtype}.")
        return image
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    if isinstance(image, (str, os.PathLike)):
        try:
            with Image.open(image) as opened:
                image = ImageOps.exif_transpose(opened)
                image.load()
        except (UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError(f"Expected a file of an image, but {os.fspath(image)} cannot be read: {error}") from error
    if not isinstance(image, Image.Image):
        raise TypeError(
            "Expected an image as a tensor (C, *spatial), an array (H, W, C), a PIL image or the name of a file, but "
            f"got {type(image).__name__}."
        )
    if image.mode not in (*_GREY, *_COLOURED):
        raise ValueError(
            f"Expected a PIL image of 8 bits (modes L, RGB, ...), but got mode {image.mode!r}, whose range is not "
            "known: pass an array of floats in [0, 1]."
        )
    grey = channels == 1 or (channels != 3 and image.mode in _GREY)
    return image.convert("L" if grey else "RGB")


def _from_array(image: np.ndarray[Any, Any], channels: int | None) -> Tensor | Image.Image:
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or 0 in image.shape or (image.shape[2] > 4 >= image.shape[0]):
        raise ValueError(
            f"Expected an array of shape (H, W, C), (H, W) or (N, H, W, C), but got {image.shape}. With channels "
            "first, as the model takes it, pass a tensor: `torch.from_numpy(image)`."
        )
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        return _opened(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), channels)
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"Expected an array of uint8, or of floats in [0, 1], but got {image.dtype}.")
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return to_pixels(tensor.float() if tensor.is_floating_point() else tensor)


def _preprocessed(image: Tensor | Image.Image, preprocess: Preprocessing) -> Tensor:
    if isinstance(preprocess, Normalization):
        preprocess = Preprocess(preprocess.mean, preprocess.std)
    if not callable(preprocess):
        raise TypeError(
            "Expected `preprocess` to be a Preprocess, a Normalization, or a callable of an image, but got "
            f"{type(preprocess).__name__}."
        )
    made = preprocess(to_pixels(image) if isinstance(image, Tensor) else image)
    if not isinstance(made, Tensor) or not made.is_floating_point() or made.ndim < 2:
        what = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise TypeError(f"Expected `preprocess` to return a float tensor (C, *spatial) of one image, but got {what}.")
    return made.as_subclass(Tensor)


def _pixels_of(preprocess: Preprocessing | None) -> Normalization | None:
    """The normalisation in what preprocesses, where there is one that can be read."""
    if isinstance(preprocess, Preprocess):
        return preprocess.pixels
    if preprocess is None or isinstance(preprocess, Normalization):
        return preprocess
    inside = [preprocess, *getattr(preprocess, "transforms", ())]  # of Compose
    found = [(each.mean, each.std) for each in inside if hasattr(each, "mean") and hasattr(each, "std")]
    return Normalization(*found[-1]) if len(found) == 1 else None


def _convolutions(model: nn.Module | None) -> tuple[int | None, int | None]:
    """How many spatial dimensions and channels images have, where the model's convolutions agree on the former."""
    modules = [] if not isinstance(model, nn.Module) else list(model.modules())
    found = [(sides, m.in_channels) for m in modules for kind, sides in _CONVOLUTIONS if isinstance(m, kind)]
    if len({sides for sides, _ in found}) != 1:
        return None, None
    return found[0]


def _device(model: nn.Module | None, image: Tensor) -> torch.device:
    """Where an image goes: what is on the CPU, as all that is read from files, follows the model."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return image.device if parameter is None or image.device.type != "cpu" else parameter.device
