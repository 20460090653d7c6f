"""Loading of arrays, PIL images, files and tensors into a probe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from lightning_gradcam.probe.image_axes import list_convolutions
from lightning_gradcam.probe.image_files import read_deep_pixels, read_image
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.preprocess import Preprocessing, preprocess_image, read_normalization
from lightning_gradcam.probe.probe import Probe

ImageLike: TypeAlias = "Tensor | np.ndarray[Any, Any] | Image.Image | str | os.PathLike[str]"
Images: TypeAlias = "ImageLike | Sequence[ImageLike] | Probe"
"""The images that `explain` accepts: one or several, see `as_probe`."""

_GRAY_MODES, _COLOR_MODES = ("L", "1", "LA"), ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")


def as_probe(images: Images, model: nn.Module | None = None, preprocess: Preprocessing | None = None) -> Probe:
    """Load images of any supported type into a probe without inference tensors.

    Args:
        images: A `Probe`; a batch, which is a tensor ``(N, C, *spatial)`` or an array ``(N, H, W, C)``; one image, or a
            list of images, each of which is a tensor ``(C, *spatial)``, an array ``(H, W, C)`` or ``(H, W)`` of uint8
            or of floats in [0, 1], a PIL image, or a file name.
        model: The model, whose convolutions show whether a tensor is one image or a batch, and whether images are gray.
        preprocess: Called with each image: a PIL image for PIL images, files and uint8 arrays, else a tensor
            ``(C, *spatial)`` of pixels in [0, 1], as also for files of 16 bits or floats. Without it, tensors must be
            preprocessed already, and all other images become pixels in [0, 1].

    Raises:
        TypeError: An image has an unsupported type.
        ValueError: The images are ambiguous: floats outside of [0, 1], a PIL mode without a known range, images of
            different sizes, or `preprocess` together with a Probe.
    """
    if isinstance(images, Probe):
        if preprocess is not None:
            raise ValueError(
                "Expected no `preprocess` with a Probe, whose images must be preprocessed already. Preprocess them "
                "before creating the Probe."
            )
        return images.without_inference_tensors()
    dimensions, channels = _read_input_format(model)
    if isinstance(images, Tensor) and preprocess is None:
        # Several spectrograms without channels have as many dimensions as one image.
        is_image = images.ndim - 1 == dimensions and not (channels == 1 != len(images))
        return Probe(images[None] if is_image else images).without_inference_tensors()
    image_list = _list_images(images, dimensions)
    loaded = [_load(image, channels) for image in image_list]
    if preprocess is None:
        tensors = [image if isinstance(image, Tensor) else to_pixels(image) for image in loaded]
    else:
        tensors = [
            preprocess_image(to_pixels(image) if isinstance(image, Tensor) else image, preprocess) for image in loaded
        ]
    sizes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(sizes) > 1:
        raise ValueError(
            f"Expected images of the same size, but got {' and '.join(map(str, sizes[:3]))}. Pass a `preprocess` that "
            "resizes them: `Preprocess(mean, std, size=224)`, or a torchvision transform."
        )
    if preprocess is None and not any(isinstance(image, Tensor) for image in image_list):
        pixels: Normalization | None = Normalization((0.0,), (1.0,))
    else:
        pixels = read_normalization(preprocess)
    batch = torch.stack([tensor.to(_choose_device(model, tensor)) for tensor in tensors])
    return Probe(batch, pixels=pixels).without_inference_tensors()


def to_pixels(image: Any) -> Tensor:
    """Convert one image of any supported type to pixels ``(C, *spatial)`` in [0, 1].

    Raises:
        TypeError: The image has an unsupported type.
        ValueError: The image has values outside of [0, 1], or an unknown range.

    >>> to_pixels(np.full((2, 3, 1), 255, np.uint8)).shape
    torch.Size([1, 2, 3])
    """
    image = _load(image, None)
    if isinstance(image, Image.Image):
        image = F.pil_to_tensor(image)
    assert isinstance(image, Tensor)
    if image.is_floating_point():
        low, high = torch.stack(image.aminmax()).tolist()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"Expected pixels in [0, 1], or uint8 pixels in 0..255, but got floats from {low:.3g} to {high:.3g}. "
                "Divide by 255. If the images are normalized already, pass them as a tensor."
            )
        return image
    pixels: Tensor = F.to_dtype(image, scale=True)
    return pixels


def _list_images(images: Any, dimensions: int | None) -> list[Any]:
    """Split a batch or a list into single images."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    if isinstance(images, Tensor):
        return [images] if images.ndim - 1 == dimensions else list(images)
    if isinstance(images, np.ndarray):
        return [images] if images.ndim < 4 else list(images)
    if isinstance(images, Sequence) and images:
        return list(images)
    description = f"an empty {type(images).__name__}" if isinstance(images, Sequence) else type(images).__name__
    raise TypeError(
        "Expected a tensor of shape (N, C, *spatial) or (C, *spatial), an array (H, W, C), a PIL image, a file name, a "
        f"list of these, or a Probe, but got {description}. From a DataLoader, pass the images of one batch."
    )


def _load(image: Any, channels: int | None) -> Tensor | Image.Image:
    """Load one image as a tensor ``(C, *spatial)``, or as a PIL image in gray or RGB."""
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(f"Expected images of uint8 or floats, but got {image.dtype}.")
        return image
    if isinstance(image, np.ndarray):
        return _load_array(image, channels)
    if isinstance(image, (str, os.PathLike)):
        image = read_image(image)
    elif isinstance(image, Image.Image) and (pixels := read_deep_pixels(image, image)) is not None:
        image = pixels
    if isinstance(image, Tensor):
        return image.expand(channels, -1, -1) if channels == 3 else image
    if not isinstance(image, Image.Image):
        raise TypeError(
            "Expected an image as a tensor (C, *spatial), an array (H, W, C), a PIL image or a file name, but got "
            f"{type(image).__name__}."
        )
    if image.mode not in (*_GRAY_MODES, *_COLOR_MODES):
        raise ValueError(
            f"Expected an 8-bit PIL image (modes L, RGB, ...) or a file of unsigned 16 bits or floats, but got mode "
            f"{image.mode!r}, whose range is unknown. Pass an array of floats in [0, 1]."
        )
    is_gray = channels == 1 or (channels != 3 and image.mode in _GRAY_MODES)
    return image.convert("L" if is_gray else "RGB")


def _load_array(image: np.ndarray[Any, Any], channels: int | None) -> Tensor | Image.Image:
    """Load one image from an array ``(H, W, C)`` or ``(H, W)``."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or 0 in image.shape or (image.shape[2] > 4 >= image.shape[0]):
        raise ValueError(
            f"Expected an array of shape (H, W, C), (H, W) or (N, H, W, C), but got {image.shape}. With channels "
            "first, pass a preprocessed tensor instead: `torch.from_numpy(image)`."
        )
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        return _load(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), channels)
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise TypeError(
            f"Expected an array of uint8, or of floats in [0, 1], but got {image.dtype}. Divide by the number that is "
            "white, such as 65535 for 16 bits."
        )
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return to_pixels(tensor.float() if tensor.is_floating_point() else tensor)


def _read_input_format(model: nn.Module | None) -> tuple[int | None, int | None]:
    """Return the numbers of spatial dimensions and channels of images if all convolutions have the same dimensions."""
    formats = list_convolutions(model) if isinstance(model, nn.Module) else []
    return formats[0] if len({dimensions for dimensions, _ in formats}) == 1 else (None, None)


def _choose_device(model: nn.Module | None, image: Tensor) -> torch.device:
    """Return the model's device for an image on the CPU, such as one from a file; other images stay on theirs."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return image.device if parameter is None or image.device.type != "cpu" else parameter.device
