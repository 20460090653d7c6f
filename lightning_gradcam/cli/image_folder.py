"""A folder of images as a dataset: read in the order of names, one of each class after the other."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import functional as F

from lightning_gradcam.cli.errors import WrongCallError, describe_error
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def read_folder(
    folder: Path, count: int, size: tuple[int, int] | None, channels: int, pixels: Normalization | None
) -> Probe:
    """Read images.

    Args:
        folder: With images; where there are folders in it, these are the classes, in the order of their names.
        count: How many at most.
        size: ``(height, width)``: images are made as small as still covers it, and the middle is cut out.
        channels: 3, or 1 for grey ones.
        pixels: What they are normalised with.

    Raises:
        WrongCallError: There are none, one cannot be read, or they differ in size.
    """
    chosen = _chosen(folder)[:count]
    if not chosen:
        raise WrongCallError(f"there are no images in --data {folder} ({', '.join(SUFFIXES)})")
    if channels not in (1, 3):
        raise WrongCallError(f"expected --channels 1 or 3, but got {channels}")
    images = [_read(path, size, channels) for path, _ in chosen]
    sizes = {tuple(image.shape[1:]) for image in images}
    if len(sizes) > 1:
        some = ", ".join("×".join(map(str, s)) for s in sorted(sizes)[:3])
        raise WrongCallError(f"the images in --data {folder} differ in size ({some}): give one, --size 224 say")
    stacked = torch.stack(images)
    if pixels is not None and len(pixels.mean) not in (1, channels):
        raise WrongCallError(f"expected {channels} numbers in --mean and --std, but got {len(pixels.mean)}")
    labels = [label for _, label in chosen if label is not None]
    return Probe(
        stacked if pixels is None else pixels.normalize(stacked),
        labels=torch.tensor(labels) if len(labels) == len(chosen) else None,
        pixels=pixels,
    )


def _chosen(folder: Path) -> list[tuple[Path, int | None]]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        return [(path, None) for path in _inside(folder)]
    columns = [[(path, label) for path in _inside(each)] for label, each in enumerate(classes)]
    return [found for row in zip_longest(*columns) for found in row if found is not None]


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _read(path: Path, size: tuple[int, int] | None, channels: int) -> Tensor:
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise WrongCallError(f"the image {path} cannot be read: {describe_error(error)}") from error
    if size is not None:
        height, width = size
        scale = max(height / image.height, width / image.width)
        image = image.resize(
            (max(round(image.width * scale), width), max(round(image.height * scale), height)),
            Image.Resampling.BILINEAR,
        )
        image = F.center_crop(image, [height, width])
    pixels: Tensor = F.to_tensor(image)
    return pixels
