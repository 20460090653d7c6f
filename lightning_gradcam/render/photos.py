"""Images as the model takes them, turned back into what a person would see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.colors import ColorTable, lay_over, to_bytes, to_gray
from lightning_gradcam.render.font import Font
from lightning_gradcam.utils.interpolation import Interpolation

SEAM = 2
"""Pixels between views of the same image."""

_SLACK = 0.02  # of the range: decoders and resizing overshoot a little


@dataclass(frozen=True)
class Photos:
    """Photos at the size of their tiles.

    Args:
        photos: ``(N, 3, h, w)`` uint8.
        under: ``(N, 1, h, w)`` the same in grey in [0, 1], for the overlay.
        ramp: Colours of evidence.
    """

    photos: Tensor
    under: Tensor
    ramp: ColorTable
    noun: ClassVar[str] = "image"
    legend: ClassVar[str] = ""

    @staticmethod
    def extent(photos: Tensor) -> tuple[int, int, int]:
        """Height and width of photos ``(N, 3, H, W)``, each shown once."""
        return photos.shape[-2], photos.shape[-1], 1

    @staticmethod
    def of(photos: Tensor, size: tuple[int, int], _views: int, ramp: ColorTable, _font: Font, /) -> Photos:
        """Photos ``(N, 3, H, W)`` in [0, 1] in that height and width."""
        shown = fit_tiles(photos, size)
        return Photos(to_bytes(shown * 255), to_gray(shown), ramp)

    @property
    def words(self) -> int:
        """The row of a tile that says why a map is degenerate."""
        return self.photos.shape[-2] // 2

    def freeze_view(self, _: Tensor, /) -> Photos:
        """The same whatever the evidence."""
        return self

    def overlays(
        self, evidence: Tensor, map_status: Tensor, scale: Tensor | None, interpolation: Interpolation = "bilinear"
    ) -> Tensor:
        """Photos with evidence, ``(N, 3, h, w)`` uint8."""
        size = (self.photos.shape[-2], self.photos.shape[-1])
        return lay_over(self.under, to_heatmaps(evidence, map_status, size, scale, interpolation), self.ramp)


def restore_photos(images: Tensor, pixels: Normalization | None = None) -> tuple[Tensor, str]:
    """Images ``(N, C, H, W)`` to RGB ``(N, 3, H, W)`` in [0, 1], and how that was done. (Waits for the device.)

    With a normalisation that fits, colours are true. Without, images in [0, 1] or 0..255 are shown as they are, and any
    other range is stretched, one stretch for all images. More than three channels are shown as their mean.

    >>> restore_photos(torch.full((1, 1, 2, 2), 0.5))[1]
    'images lie in [0, 1] and are shown as they are'
    """
    images = images.detach().float().nan_to_num(0, 0, 0)
    notes = []
    if pixels is not None and len(pixels.mean) in (1, images.shape[1]):
        restored = pixels.restore(images)
        low, high = _range(restored)
        if low >= -_SLACK and high <= 1 + _SLACK:
            notes.append(f"colours restored with mean {_short(pixels.mean)} and std {_short(pixels.std)}")
            return _rgb(restored.clamp(0, 1), notes)
        notes.append(
            f"the normalisation with mean {_short(pixels.mean)} and std {_short(pixels.std)} gives {low:.3g} to "
            f"{high:.3g} instead of [0, 1] and is not used"
        )
    elif pixels is not None:
        notes.append(f"the normalisation has {len(pixels.mean)} channels, the images have {images.shape[1]}")
    low, high = _range(images)
    if low >= 0 and high <= 1:
        notes.append("images lie in [0, 1] and are shown as they are")
        return _rgb(images, notes)
    if low >= 0 and 1 < high <= 255 and high > 2:
        notes.append("images lie in 0..255 and are shown as they are")
        return _rgb(images / 255, notes)
    notes.append(
        f"images lie in {low:.3g} to {high:.3g}: stretched, so colours and contrast are not true (pass `pixels=` with "
        "their mean and std)"
    )
    return _rgb((images - low) / max(high - low, 1e-12), notes)


def fit_tiles(photos: Tensor, size: tuple[int, int]) -> Tensor:
    """Photos at the size of their tiles: enlarged by repeating pixels, made smaller with antialiasing."""
    if size == tuple(photos.shape[-2:]):
        return photos
    if size[0] >= photos.shape[-2] and size[1] >= photos.shape[-1]:
        return F.interpolate(photos, size=size, mode="nearest-exact")
    return F.interpolate(photos, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def _range(images: Tensor) -> tuple[float, float]:
    low, high = torch.stack(images.aminmax()).tolist()
    return low, high


def to_rgb(images: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N, 3, H, W)``: grey where there are not three channels, their mean."""
    return (images if images.shape[1] == 3 else images.mean(1, keepdim=True)).expand(-1, 3, -1, -1)


def _rgb(images: Tensor, notes: list[str]) -> tuple[Tensor, str]:
    channels = images.shape[1]
    if channels not in (1, 3):
        notes = [*notes, f"the {channels} channels are shown as their mean"]
    return to_rgb(images), "; ".join(notes)


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"
