"""Photos: model inputs converted back to what a person would see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.colors import ColorTable, blend_heatmaps, to_bytes, to_gray
from lightning_gradcam.render.tiles import FixedView, TileStyle, fit_tiles
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation

_TOLERANCE = 0.02  # of the range: decoders and resizing overshoot a little


@dataclass(frozen=True)
class Photos(FixedView):
    """Canvas of photos, see `Canvas`.

    Args:
        image_tiles: ``(N, 3, h, w)`` uint8.
        gray: ``(N, 1, h, w)`` the same in gray in [0, 1], under the evidence.
        color_table: Colors of evidence.
    """

    image_tiles: Tensor
    gray: Tensor
    color_table: ColorTable
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
        return Photos(to_bytes(tiles * 255), to_gray(tiles), style.color_table)

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
        size = (self.image_tiles.shape[-2], self.image_tiles.shape[-1])
        heatmaps = to_heatmaps(evidence, map_status, size, scale, interpolation, centers)
        return blend_heatmaps(self.gray, heatmaps, self.color_table)


def restore_photos(images: Tensor, pixels: Normalization | None = None) -> tuple[Tensor, str]:
    """Convert images ``(N, C, H, W)`` to RGB ``(N, 3, H, W)`` in [0, 1]. (Waits for the device.)

    With a normalization that fits, colors are true. Otherwise images in [0, 1] or 0..255 are shown unchanged, and any
    other range is stretched to [0, 1], jointly for all images. Channels are shown as their mean unless there are one or
    three.

    Returns:
        The photos and a description of the conversion.

    >>> restore_photos(torch.full((1, 1, 2, 2), 0.5))[1]
    'images lie in [0, 1] and are shown as they are'
    """
    images = images.detach().float().nan_to_num(0, 0, 0)
    notes = []
    if pixels is not None and len(pixels.mean) in (1, images.shape[1]):
        denormalized = pixels.restore(images)
        low, high = _find_range(denormalized)
        statistics = f"mean {_format_values(pixels.mean)} and std {_format_values(pixels.std)}"
        if low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
            notes.append(f"colors restored with {statistics}")
            return _convert_to_rgb(denormalized.clamp(0, 1), notes)
        notes.append(
            f"the normalization with {statistics} gives {low:.3g} to {high:.3g} instead of [0, 1] and is not used"
        )
    elif pixels is not None:
        notes.append(f"the normalization has {len(pixels.mean)} channels, the images have {images.shape[1]}")
    low, high = _find_range(images)
    if low >= 0 and high <= 1:
        notes.append("images lie in [0, 1] and are shown as they are")
        return _convert_to_rgb(images, notes)
    if low >= 0 and 1 < high <= 255 and high > 2:
        notes.append("images lie in 0..255 and are shown as they are")
        return _convert_to_rgb(images / 255, notes)
    notes.append(
        f"images lie in {low:.3g} to {high:.3g}: stretched, so colors and contrast are not true (pass `pixels=` with "
        "their mean and std)"
    )
    return _convert_to_rgb((images - low) / max(high - low, 1e-12), notes)


def to_rgb(images: Tensor) -> Tensor:
    """Convert ``(N, C, H, W)`` to ``(N, 3, H, W)``: gray, the mean of the channels, unless there are three."""
    return (images if images.shape[1] == 3 else images.mean(1, keepdim=True)).expand(-1, 3, -1, -1)


def _convert_to_rgb(images: Tensor, notes: list[str]) -> tuple[Tensor, str]:
    """Return the images as RGB and the joined notes."""
    channels = images.shape[1]
    if channels not in (1, 3):
        notes = [*notes, f"the {channels} channels are shown as their mean"]
    return to_rgb(images), "; ".join(notes)


def _find_range(images: Tensor) -> tuple[float, float]:
    low, high = torch.stack(images.aminmax()).tolist()
    return low, high


def _format_values(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"
