"""Canvases: the way images are drawn, by their number of spatial dimensions: signals, photos or volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, TypeAlias

from torch import Tensor

from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.colors import ColorTable
from lightning_gradcam.render.photos import Photos, restore_photos
from lightning_gradcam.render.signals import Signals, restore_signals
from lightning_gradcam.render.volumes import Volumes, restore_volumes
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation


class Canvas(Protocol):
    """Images as tiles of a figure, on which evidence is drawn.

    The class attributes ``noun`` and ``footnote`` are the name of one image and a remark for the footer of the figure.
    """

    noun: ClassVar[str]
    footnote: ClassVar[str]

    @property
    def image_tiles(self) -> Tensor:
        """The images without evidence, ``(N, 3, h, w)`` uint8."""

    @property
    def color_table(self) -> ColorTable:
        """The colors of evidence."""

    @property
    def message_row(self) -> int:
        """The row of pixels of an overlay on which the status of a degenerate map is centered."""

    def freeze_view(self, evidence: Tensor, centers: CellCenters | None = None) -> Canvas:
        """Return the canvas that shows, for any evidence, the view that this evidence selects."""

    def draw_overlays(
        self,
        evidence: Tensor,
        map_status: Tensor,
        scale: Tensor | None,
        interpolation: Interpolation = "bilinear",
        centers: CellCenters | None = None,
    ) -> Tensor:
        """Draw the images with evidence.

        Args:
            evidence: ``(N, *s)`` signed.
            map_status: ``(N,)`` as in `Explanation`.
            scale: The evidence that has the last color; None scales each map separately.
            interpolation: How maps are enlarged.
            centers: Centers of the cells in the image; None if they cover it evenly.

        Returns:
            Tiles ``(N, 3, h, w)`` uint8; those of signals are higher than the images.
        """


CanvasType: TypeAlias = type[Signals] | type[Photos] | type[Volumes]
"""``measure_view(images)`` returns the height and width of a view and the number of views of each image;
``from_images(images, style)`` builds the canvas of images that `restore_images` returned."""

CANVAS_TYPES: Mapping[int, CanvasType] = {1: Signals, 2: Photos, 3: Volumes}
"""Canvas types by the number of spatial dimensions."""


def restore_images(
    images: Tensor, pixels: Normalization | None = None, bands: Sequence[int] | None = None
) -> tuple[Tensor, str]:
    """Convert model inputs to images that a canvas can draw. (Waits for the device.)

    Args:
        images: ``(N, C, *spatial)``.
        pixels: The normalization of the images, to be inverted.
        bands: The channels to show as red, green and blue, see `restore_photos`.

    Returns:
        The restored images ``(N, C, *spatial)`` and a description of the conversion.
    """
    if images.ndim == 3:
        return restore_signals(images)  # rescales each channel, so the normalization makes no difference
    return (restore_photos if images.ndim == 4 else restore_volumes)(images, pixels, bands)


def find_canvas_type(images: Tensor) -> CanvasType:
    """Return the canvas type of images ``(N, C, *spatial)``."""
    return CANVAS_TYPES[images.ndim - 2]
