"""Images in a folder: sorted by name, alternating between classes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from lightning_gradcam.cli.errors import UsageError, describe_error, to_one_line
from lightning_gradcam.probe.image_files import read_image
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def read_folder(
    folder: Path, count: int, size: tuple[int, int] | None, channels: int, normalization: Normalization | None
) -> Probe:
    """Read the images in a folder.

    Args:
        folder: A folder of images. If it has subfolders, these are the classes, sorted by name.
        count: Number of images, at most.
        size: ``(height, width)``: images are resized to cover it, then cropped at the center.
        channels: 3, or 1 for grayscale images.
        normalization: The normalization of the images.

    Raises:
        UsageError: There are no images, one cannot be read, or they differ in size.
    """
    files = _list_labeled_files(folder)[:count]
    if not files:
        raise UsageError(f"Expected images ({', '.join(SUFFIXES)}) in --data {folder}, but got none.")
    if channels not in (1, 3):
        raise UsageError(f"Expected --channels to be 1 or 3, but got {channels}.")
    images = _stack_images(_read_images([path for path, _ in files], size, channels), folder)
    if normalization is not None and len(normalization.mean) not in (1, channels):
        raise UsageError(
            f"Expected --mean and --std to have {channels} numbers each, but got {len(normalization.mean)}."
        )
    labels = [label for _, label in files if label is not None]
    return Probe(
        images if normalization is None else normalization.normalize(images),
        labels=torch.tensor(labels) if len(labels) == len(files) else None,
        pixels=normalization,
    )


def _list_labeled_files(folder: Path) -> list[tuple[Path, int | None]]:
    """Return the files and their classes, the first of each class before the second of any."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        return [(path, None) for path in _list_image_files(folder)]
    columns = [[(path, label) for path in _list_image_files(subfolder)] for label, subfolder in enumerate(classes)]
    return [file for row in zip_longest(*columns) for file in row if file is not None]


def _list_image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _stack_images(images: list[Tensor], folder: Path) -> Tensor:
    sizes = sorted({tuple(image.shape[1:]) for image in images})
    if len(sizes) > 1:
        examples = ", ".join("×".join(map(str, size)) for size in sizes[:3])
        raise UsageError(
            f"Expected images of the same size in --data {folder}, but got {examples}. Pass --size, for example "
            "--size 224."
        )
    return torch.stack(images)


def _read_images(paths: Sequence[Path], size: tuple[int, int] | None, channels: int) -> list[Tensor]:
    """Return images ``(C, H, W)`` in [0, 1], and print each warning about them once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = [_read_image(path, size, channels) for path in paths]
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        sys.stderr.write(f"lightning-gradcam: {to_one_line(message)}\n")
    return images


def _read_image(path: Path, size: tuple[int, int] | None, channels: int) -> Tensor:
    """Return an image ``(C, H, W)`` in [0, 1]."""
    try:
        image = read_image(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"The image {path} cannot be read: {describe_error(error)}") from error
    if isinstance(image, Image.Image):
        image = image.convert("L" if channels == 1 else "RGB")
        height, width = image.height, image.width
    else:
        image = image.expand(channels, -1, -1)
        height, width = image.shape[1:]
    if size is not None:
        scale = max(size[0] / height, size[1] / width)
        height, width = max(round(height * scale), size[0]), max(round(width * scale), size[1])
        if isinstance(image, Image.Image):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        else:
            image = F.resize(image, [height, width], antialias=True)
        image = F.center_crop(image, list(size))
    pixels: Tensor = F.to_tensor(image) if isinstance(image, Image.Image) else image
    return pixels
