"""Image files, read upright, with their whole range, and by decoders that run no other program."""

from __future__ import annotations

import os
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "TGA", "AVIF")
"""The formats that are read, whatever a file's name says. Pillow passes others, such as EPS, to Ghostscript."""

TURNED = (
    "An image file was turned upright by its EXIF orientation, as people see it. torchvision's ImageFolder and "
    "decode_image ignore the orientation: if the model was trained on what they return, pass that instead of the file."
)
"""The warning about an EXIF orientation."""

_ORIENTATION = 0x0112  # EXIF
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF


def read_image(path: str | os.PathLike[str]) -> Image.Image | Tensor:
    """Decode an image file, upright; an image of more than 8 bits as `read_deep_pixels` returns it.

    Warns about an EXIF orientation, which torchvision's loaders ignore.

    Raises:
        ValueError: The file is not an image of one of the `FORMATS`, or is damaged.
        OSError: The file does not exist, or may not be read.
    """
    Image.init()
    with open(path, "rb") as content:  # an error of the file system keeps its type
        try:
            with Image.open(content, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
                file.load()
                if file.getexif().get(_ORIENTATION, 1) != 1:
                    warnings.warn(TURNED, stacklevel=2)
                image = ImageOps.exif_transpose(file)
                return image if (pixels := read_deep_pixels(image, file)) is None else pixels
        except UnidentifiedImageError as error:
            raise ValueError(
                f"Expected an image file, but {os.fspath(path)} cannot be read: its content is none of "
                f"{', '.join(FORMATS)}."
            ) from error
        except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
            raise ValueError(
                f"Expected an image file, but {os.fspath(path)} cannot be read: {str(error).rstrip('.')}."
            ) from error


def read_deep_pixels(image: Image.Image, file: Image.Image) -> Tensor | None:
    """Return the pixels ``(1, H, W)`` of an image with more than 8 bits per sample, which Pillow would clip.

    The range of unsigned integers in a file is that of their bits: the largest number is white, and 1. Floats are
    returned unchanged; they are pixels only if they lie in [0, 1].

    Args:
        image: The image.
        file: The image as it was opened, which knows the format and the tags of the file.

    Returns:
        float32; None for 8 bits, and where the range is unknown: signed integers, or an image that is not of a file.

    Raises:
        ValueError: Floats lie outside of [0, 1].
    """
    if image.mode == "F" and file.format is not None:
        floats = np.array(image, np.float32)
        if not (floats.min() >= 0 and floats.max() <= 1):
            raise ValueError(
                f"Expected floats in [0, 1], but got floats from {floats.min():.3g} to {floats.max():.3g}, whose range "
                "is unknown. Pass an array of floats in [0, 1], or a preprocessed tensor"
            )
        return torch.from_numpy(floats)[None]
    is_unsigned = image.mode.startswith("I;16") or (image.mode == "I" and file.format in ("PNG", "PPM"))
    if not is_unsigned or file.format not in ("PNG", "TIFF", "PPM"):
        return None
    tags = getattr(file, "tag_v2", {})
    white = 2 ** int(tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    pixels: Tensor = torch.from_numpy(np.array(image).astype(np.float32))[None] / white
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        pixels = 1 - pixels
    return pixels
