"""Tiles: images at their size in a figure, and their assembly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from lightning_gradcam.render.arrangement import GAP
from lightning_gradcam.render.colors import PAPER, ColorTable
from lightning_gradcam.render.font import Font
from lightning_gradcam.utils.cell_centers import CellCenters


@dataclass(frozen=True)
class TileStyle:
    """Appearance of the tiles of a figure.

    Args:
        size: Height and width of one view in pixels.
        views: Number of views of each image.
        color_table: Colors of evidence.
        font: Font of text within the tiles.
        width: Width of the tiles, at least that of all views; the images are centered in it.
    """

    size: tuple[int, int]
    views: int
    color_table: ColorTable
    font: Font
    width: int = 0


class FixedView:
    """Base of canvases that show the same view of an image for any evidence."""

    def freeze_view(self, evidence: Tensor, centers: CellCenters | None = None) -> Self:  # noqa: ARG002  # for `Volumes`
        """Return this canvas."""
        return self


def fit_tiles(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images ``(N, C, H, W)`` in [0, 1]: enlarge by repeating pixels, shrink with antialiasing."""
    if size == tuple(images.shape[-2:]):
        return images
    if size[0] >= images.shape[-2] and size[1] >= images.shape[-1]:
        return F.interpolate(images, size=size, mode="nearest-exact")
    return F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def join_tiles(tiles: Sequence[Tensor], gap: int, dim: int) -> Tensor:
    """Concatenate tiles ``(N, 3, h, w)`` along ``dim`` with ``gap`` pixels of background between them."""
    shape = list(tiles[0].shape)
    shape[dim] = gap
    spacer = tiles[0].new_full(shape, PAPER[0])
    return torch.cat([block for tile in tiles for block in (tile, spacer)][:-1], dim=dim)


def center_tiles(tiles: Tensor, width: int) -> Tensor:
    """Pad tiles ``(N, 3, h, w)`` on both sides to at least ``width``."""
    missing = max(width - tiles.shape[-1], 0)
    return F.pad(tiles, (missing // 2, missing - missing // 2), value=PAPER[0]) if missing else tiles


def pad_to_height(tiles: Sequence[Tensor]) -> list[Tensor]:
    """Pad tiles ``(N, 3, h, w)`` at the bottom to the height of the highest."""
    height = max(tile.shape[-2] for tile in tiles)
    return [F.pad(tile, (0, 0, 0, height - tile.shape[-2]), value=PAPER[0]) for tile in tiles]


def draw_grid(cells: Tensor, columns: int) -> Tensor:
    """Arrange cells ``(N, 3, h, w)`` in a grid ``(3, height, width)`` with gaps between and around them."""
    if len(cells) == 1:  # make_grid would not pad a single cell
        return F.pad(cells[0], (GAP, GAP, GAP, GAP), value=PAPER[0])
    grid: Tensor = make_grid(cells, nrow=columns, padding=GAP, pad_value=PAPER[0])
    return grid
