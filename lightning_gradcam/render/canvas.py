"""What images look like in a picture, by the number of their spatial dimensions: signals, photos, volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.colors import ColorTable
from lightning_gradcam.render.font import Font
from lightning_gradcam.render.photos import Photos, restore_photos
from lightning_gradcam.render.signals import Signals, restore_signals
from lightning_gradcam.render.volumes import Volumes, restore_volumes
from lightning_gradcam.utils.interpolation import Interpolation


class Canvas(Protocol):
    """Images at the size of their tiles, and how evidence is shown on them.

    What one of them is called, and what the foot of a picture has to say about them, are ``noun`` and ``legend``.
    """

    noun: ClassVar[str]
    legend: ClassVar[str]

    @property
    def photos(self) -> Tensor:
        """``(N, 3, h, w)`` uint8: the images as a person sees them."""

    @property
    def words(self) -> int:
        """The row of a tile around which it says why a map is degenerate."""

    def freeze_view(self, evidence: Tensor, /) -> Canvas:
        """What this evidence chooses to show; the same for any evidence from there on."""

    def overlays(
        self, evidence: Tensor, map_status: Tensor, scale: Tensor | None, interpolation: Interpolation = "bilinear"
    ) -> Tensor:
        """Tiles with evidence ``(N, 3, h, w)`` uint8."""


class CanvasType(Protocol):
    """What makes the canvas of images with one number of spatial dimensions."""

    def extent(self, photos: Tensor) -> tuple[int, int, int]:
        """Height and width of a view of ``(N, C, *spatial)`` images, and how many views of each a sheet shows."""

    def of(self, photos: Tensor, size: tuple[int, int], views: int, ramp: ColorTable, font: Font, /) -> Canvas:
        """Draw images as `restore_images` gives them, with so many views of each, of that height and width."""


KINDS: Mapping[int, CanvasType] = {1: Signals, 2: Photos, 3: Volumes}
"""By the number of spatial dimensions."""


def restore_images(images: Tensor, pixels: Normalization | None = None) -> tuple[Tensor, str]:
    """Images ``(N, C, *spatial)`` as the model takes them to what `Canvas.of` draws, and how that was done.

    (Waits for the device.)
    """
    if images.ndim == 3:
        return restore_signals(images)  # stretched anyway, so their normalisation makes no difference
    return (restore_photos if images.ndim == 4 else restore_volumes)(images, pixels)


def find_canvas_type(photos: Tensor) -> CanvasType:
    """What draws images ``(N, C, *spatial)``."""
    return KINDS[photos.ndim - 2]
