"""Photos: model inputs converted back to what a person would see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.normalization import TOLERANCE, Normalization, find_range
from lightning_gradcam.render.colors import ColorTable, blend_heatmaps, to_bytes, to_gray
from lightning_gradcam.render.tiles import FixedView, TileStyle, center_tiles, fit_tiles
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation

_MARGIN = 0.01  # the part of the pixels that are black, and of those that are white, where images are stretched
_MAX_SAMPLES = 1 << 17  # pixels of an image whose percentiles are computed
_MAX_VALUES = 4  # numbers of a normalization that a note lists


@dataclass(frozen=True)
class Photos(FixedView):
    """Canvas of photos, see `Canvas`.

    Args:
        image_tiles: ``(N, 3, h, w)`` uint8.
        gray: ``(N, 1, h, w)`` the same in gray in [0, 1], under the evidence.
        color_table: Colors of evidence.
        width: Width of the tiles, if the images are narrower.
    """

    image_tiles: Tensor
    gray: Tensor
    color_table: ColorTable
    width: int = 0
    noun: ClassVar[str] = "image"
    footnote: ClassVar[str] = ""

    @staticmethod
    def measure_view(photos: Tensor) -> tuple[int, int, int]:
        """Return the height and width of photos ``(N, 3, H, W)`` and 1: each is shown once."""
        return photos.shape[-2], photos.shape[-1], 1

    @staticmethod
    def from_images(photos: Tensor, style: TileStyle) -> Photos:
        """Draw photos ``(N, 3, H, W)`` in [0, 1]."""
        tiles = fit_tiles(photos, style.size)
        image_tiles = center_tiles(to_bytes(tiles * 255), style.width)
        return Photos(image_tiles, to_gray(tiles), style.color_table, style.width)

    @property
    def message_row(self) -> int:
        """The middle of a tile."""
        return self.image_tiles.shape[-2] // 2

    def draw_overlays(
        self,
        evidence: Tensor,
        map_status: Tensor,
        scale: Tensor | None,
        interpolation: Interpolation = "bilinear",
        centers: CellCenters | None = None,
    ) -> Tensor:
        """Draw the photos in gray and their evidence in color, ``(N, 3, h, w)`` uint8."""
        size = (self.gray.shape[-2], self.gray.shape[-1])
        heatmaps = to_heatmaps(evidence, map_status, size, scale, interpolation, centers)
        return center_tiles(blend_heatmaps(self.gray, heatmaps, self.color_table), self.width)


def restore_photos(
    images: Tensor, pixels: Normalization | None = None, bands: Sequence[int] | None = None
) -> tuple[Tensor, str]:
    """Convert images ``(N, C, H, W)`` to RGB ``(N, 3, H, W)`` in [0, 1]. (Waits for the device.)

    With a normalization that fits, colors are true. Otherwise images in [0, 1] or 0..255 are shown unchanged, and each
    image of another range, such as Hounsfield units or reflectances, is stretched from its 1st to its 99th percentile,
    so that a few extreme pixels, as those of metal, do not hide all others.

    Args:
        images: ``(N, C, H, W)``.
        pixels: Their normalization; its ``bands`` come before ``bands``.
        bands: The channels to show as red, green and blue, or as gray. By default the mean of the channels is shown,
            stretched as well, unless there are one or three.

    Returns:
        The photos and a description of the conversion.

    >>> restore_photos(torch.full((1, 1, 2, 2), 0.5))[1]
    'images lie in [0, 1] and are shown as they are'
    """
    images = images.detach().float().nan_to_num(0, 0, 0)
    restored, notes = _undo_normalization(images, pixels)
    bands = pixels.bands if pixels is not None and pixels.bands is not None else bands
    low, high = find_range(restored)
    is_declared = restored is not images or (pixels is not None and pixels.is_identity)
    if low >= -TOLERANCE and high <= 1 + TOLERANCE and is_declared:
        restored = restored.clamp(0, 1)
        notes = notes or ["images lie in [0, 1] and are shown as they are"]
    elif low >= 0 and high <= 1:
        notes.append("images lie in [0, 1] and are shown as they are")
    elif low >= 0 and 2 < high <= 255:
        notes.append("images lie in 0..255 and are shown as they are")
        restored = restored / 255
    else:
        return _stretch_photos(restored, bands, notes, f"images lie in {low:.3g} to {high:.3g}")
    channels = images.shape[1]
    if channels not in (1, 3) and bands is None:
        return _stretch_photos(restored, bands, notes)
    if bands is not None:
        notes.append(_describe_bands(bands))
    return to_rgb(restored, bands), "; ".join(notes)


def to_rgb(images: Tensor, bands: Sequence[int] | None = None) -> Tensor:
    """Convert ``(N, C, H, W)`` to ``(N, 3, H, W)``: the bands, or the mean of the channels unless there are three."""
    if bands is not None:
        images = images[:, list(bands)]
    return (images if images.shape[1] == 3 else images.mean(1, keepdim=True)).expand(-1, 3, -1, -1)


def stretch_each(photos: Tensor) -> Tensor:
    """Scale each photo ``(N, C, H, W)`` to [0, 1], from its 1st to its 99th percentile over all channels.

    Where these are the same, from its lowest to its highest value.

    >>> stretch_each(torch.cat([torch.linspace(0, 10, 199), torch.tensor([9e9])]).reshape(1, 1, 10, 20)).mean() > 0.4
    tensor(True)
    """
    flat = photos.flatten(1)
    ordered = flat[:, :: math.ceil(flat.shape[1] / _MAX_SAMPLES)].sort(1).values
    last = ordered.shape[1] - 1
    low, high = ordered[:, round(_MARGIN * last)], ordered[:, round((1 - _MARGIN) * last)]
    lowest, highest = flat.amin(1), flat.amax(1)
    is_flat = high - low <= 1e-6 * torch.maximum(low.abs(), high.abs())  # else one outlier would decide
    low, high = (torch.where(is_flat, a, b)[:, None, None, None] for a, b in ((lowest, low), (highest, high)))
    return ((photos - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)


def _undo_normalization(images: Tensor, pixels: Normalization | None) -> tuple[Tensor, list[str]]:
    """Return pixels, or the images themselves if the normalization does not fit, and notes about it.

    Pixels in [0, 1] fit, and raw values such as bytes and reflectances, which are hardly negative and go beyond 100.
    """
    if pixels is None or pixels.is_identity:
        return images, []
    if len(pixels.mean) not in (1, images.shape[1]):
        return images, [f"the normalization has {len(pixels.mean)} channels, the images have {images.shape[1]}"]
    restored = pixels.restore(images)
    low, high = find_range(restored)
    statistics = f"mean {_format_values(pixels.mean)} and std {_format_values(pixels.std)}"
    if (low >= -TOLERANCE and high <= 1 + TOLERANCE) or (high > 100 and low >= -TOLERANCE * high):
        return restored, [f"colors restored with {statistics}"]
    return images, [
        f"the normalization with {statistics} gives {low:.3g} to {high:.3g} instead of [0, 1] and is not used"
    ]


def _stretch_photos(
    images: Tensor, bands: Sequence[int] | None, notes: list[str], values: str = ""
) -> tuple[Tensor, str]:
    """Return the images as RGB, each one stretched, and the joined notes."""
    channels, notes = images.shape[1], list(notes)
    if bands is not None:
        notes.append(_describe_bands(bands))
    elif channels not in (1, 3):
        notes.append(
            f"the {channels} channels are shown as their mean (pass `pixels=Normalization(mean, std, bands=(2, 1, 0))` "
            "with those that are red, green and blue)"
        )
    stretched = "each stretched from its 1st to its 99th percentile"
    if values and not any(note.startswith("colors restored") for note in notes):
        stretched += ", so colors and contrast are not true (pass `pixels=` with their mean and std)"
    notes.append(f"{values}: {stretched}" if values else f"images are {stretched}")
    return stretch_each(to_rgb(images, bands)), "; ".join(notes)


def _describe_bands(bands: Sequence[int]) -> str:
    if len(bands) == 1:
        return f"channel {bands[0]} is shown as gray"
    return f"channels {', '.join(map(str, bands))} are shown as red, green and blue"


def _format_values(values: tuple[float, ...]) -> str:
    texts = [f"{v:.3g}" for v in values[:_MAX_VALUES]]
    return "(" + ", ".join([*texts, "…"] if len(values) > _MAX_VALUES else texts) + ")"
