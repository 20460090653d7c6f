"""Volumes as the slices with the most evidence. Depth is the first spatial dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.arrangement import SEAM
from lightning_gradcam.render.colors import INK, PAPER, ColorTable, blend_heatmaps, to_bytes, to_gray
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.render.photos import restore_photos
from lightning_gradcam.render.tiles import FixedView, TileStyle, center_tiles, fit_tiles
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation, resize

MAX_SLICES = 3
"""Slices of one volume, next to each other."""


@dataclass(frozen=True)
class Volumes:
    """Canvas of volumes whose slices are selected by their evidence, see `Canvas`.

    Args:
        volumes: ``(N, 1 or 3, D, H, W)`` uint8.
        style: Size, number and colors of the slices, and the font of their numbers.
    """

    volumes: Tensor
    style: TileStyle
    noun: ClassVar[str] = "volume"
    footnote: ClassVar[str] = " · the slices with the most evidence"

    @staticmethod
    def measure_view(volumes: Tensor) -> tuple[int, int, int]:
        """Return the height and width of a slice of volumes ``(N, C, D, H, W)`` and the number of slices shown."""
        depth, height, width = volumes.shape[2:]
        return height, width, min(MAX_SLICES, depth)

    @staticmethod
    def from_images(volumes: Tensor, style: TileStyle) -> Volumes:
        """Build the canvas of volumes ``(N, C, D, H, W)`` uint8."""
        return Volumes(volumes, style)

    @property
    def image_tiles(self) -> Tensor:
        """The middle slices, as without evidence."""
        return self.freeze_view(self.volumes.new_zeros(len(self.volumes), 1, 1, 1, dtype=torch.float32)).image_tiles

    @property
    def color_table(self) -> ColorTable:
        """The colors of evidence."""
        return self.style.color_table

    @property
    def message_row(self) -> int:
        """The middle of a slice."""
        return self.style.size[0] // 2

    def freeze_view(self, evidence: Tensor, centers: CellCenters | None = None) -> Slices:
        """Cut out the slices that this evidence selects."""
        return Slices.from_volumes(self, choose_slices(evidence, self.volumes.shape[2], self.style.views, centers))

    def draw_overlays(
        self,
        evidence: Tensor,
        map_status: Tensor,
        scale: Tensor | None,
        interpolation: Interpolation = "bilinear",
        centers: CellCenters | None = None,
    ) -> Tensor:
        """Draw the slices with the most evidence, ``(N, 3, h, w)`` uint8."""
        return self.freeze_view(evidence, centers).draw_overlays(evidence, map_status, scale, interpolation, centers)


@dataclass(frozen=True)
class Slices(FixedView):
    """Canvas of selected slices of volumes, see `Canvas`.

    Args:
        image_tiles: ``(N, 3, h, w)`` uint8, the slices of a volume next to each other, with their numbers below.
        gray: ``(N * count, 1, h, w)`` the slices in gray in [0, 1], under the evidence.
        indices: ``(N, count)`` indices of the slices.
        depth: Number of slices of a volume.
        color_table: Colors of evidence.
        width: Width of the tiles, if the slices are narrower.
    """

    image_tiles: Tensor
    gray: Tensor
    indices: Tensor
    depth: int
    color_table: ColorTable
    width: int = 0
    noun: ClassVar[str] = Volumes.noun
    footnote: ClassVar[str] = " · the slice with the most evidence at the end"

    @staticmethod
    def from_volumes(canvas: Volumes, indices: Tensor) -> Slices:
        """Cut the slices with indices ``(N, count)`` out of volumes."""
        volumes, style = canvas.volumes, canvas.style
        batch = torch.arange(len(indices), device=indices.device)[:, None]
        slices = volumes.movedim(2, 1)[batch, indices].flatten(0, 1)
        tiles = fit_tiles(slices.expand(-1, 3, -1, -1) / 255, style.size)
        depth = volumes.shape[2]
        numbers = paint(_draw_numbers(indices, depth, style.size[1], style.font), INK, PAPER)
        image_tiles = _join_slices(torch.cat([to_bytes(tiles * 255), numbers], dim=2), style.views)
        image_tiles = center_tiles(image_tiles, style.width)
        return Slices(image_tiles, to_gray(tiles), indices, depth, style.color_table, style.width)

    @property
    def message_row(self) -> int:
        """The middle of a slice."""
        return self.gray.shape[-2] // 2

    def draw_overlays(
        self,
        evidence: Tensor,
        map_status: Tensor,
        scale: Tensor | None,
        interpolation: Interpolation = "bilinear",
        centers: CellCenters | None = None,
    ) -> Tensor:
        """Draw the slices with evidence, ``(N, 3, h, w)`` uint8."""
        size = (self.depth, *self.gray.shape[-2:])
        heat = [  # one volume at a time: all of them enlarged could take more memory than training
            to_heatmaps(evidence[i : i + 1], map_status[i : i + 1], size, scale, interpolation, centers)[
                0
            ].index_select(0, indices)
            for i, indices in enumerate(self.indices)
        ]
        slices = blend_heatmaps(self.gray, torch.cat(heat), self.color_table)
        return center_tiles(_join_slices(slices, self.indices.shape[1]), self.width)


def restore_volumes(
    images: Tensor, pixels: Normalization | None = None, bands: Sequence[int] | None = None
) -> tuple[Tensor, str]:
    """Convert images ``(N, C, D, H, W)`` to ``(N, 1 or 3, D, H, W)`` uint8 as `restore_photos` does.

    Returns:
        The volumes and a description of the conversion.
    """
    photos, note = restore_photos(images.flatten(2, 3), pixels, bands)
    if torch.equal(photos[:, 0], photos[:, 1]) and torch.equal(photos[:, 0], photos[:, 2]):
        photos = photos[:, :1]  # gray: one channel, and as bytes, since volumes are large
    volumes = to_bytes(photos * 255).reshape(len(images), -1, *images.shape[2:])
    count, size = min(MAX_SLICES, images.shape[2]), "×".join(map(str, images.shape[2:]))
    return volumes, f"{note}; of {size} volumes {count} of the {images.shape[2]} slices, those with the most evidence"


def choose_slices(evidence: Tensor, depth: int, count: int, centers: CellCenters | None = None) -> Tensor:
    """Return the indices ``(N, count)`` of the slices with the most evidence, in ascending order.

    Evidence is computed per cell and interpolated in between, so it is summed over each layer of cells along the
    depth, and the slice at the middle of a layer represents it. (Maps with fewer than ``count`` layers are interpolated
    to that number.) Ties are broken in favor of the middle of the volume.

    Args:
        evidence: ``(N, d, h, w)`` signed.
        depth: Number of slices of a volume.
        count: Number of slices to choose.
        centers: Centers of the cells in the volume; None if they cover it evenly.

    >>> evidence = torch.tensor([0.0, 9.0, 0.0, 0.0, 5.0, 4.0, 0.0, 0.0]).reshape(1, 8, 1, 1)
    >>> choose_slices(evidence, depth=32, count=3)
    tensor([[ 6, 18, 22]])
    """
    sums = evidence.relu().nan_to_num(0, 0, 0).sum((2, 3))
    layers = min(max(sums.shape[1], count), depth)
    along_depth = None if centers is None else CellCenters(centers.offset[:1], centers.step[:1])
    if layers != sums.shape[1]:
        sums, along_depth = resize(sums, (layers,), centers=along_depth), None
    middle_first = (torch.arange(layers, device=sums.device) * 2 - layers + 1).abs().argsort(stable=True)
    best = sums[:, middle_first].argsort(dim=1, descending=True, stable=True)[:, :count]
    best_layers = middle_first[best].sort(1).values
    if along_depth is None:
        return (best_layers * 2 + 1) * depth // (2 * layers)
    middles = (along_depth.offset[0] + along_depth.step[0] * best_layers) * depth
    return middles.floor().long().clamp(0, depth - 1)


def _draw_numbers(indices: Tensor, depth: int, width: int, font: Font) -> Tensor:
    """Draw "slice 12 of 32", counted from 1, or as much as fits: coverage ``(N * count, font height, width)``."""
    digits = len(str(depth))
    number = font.encode_number(indices.flatten() + 1, digits, 0)
    for prefix, suffix in (("slice ", f" of {depth}"), ("", f" of {depth}"), ("", f"/{depth}")):
        if (len(prefix) + digits + len(suffix)) * font.width <= width:
            break
    prefix_codes, suffix_codes = (font.encode([text])[0].expand(len(number), -1) for text in (prefix, suffix))
    coverage = font.draw(torch.cat([prefix_codes, number, suffix_codes], dim=1))[..., :width]
    return F.pad(coverage, (0, width - coverage.shape[-1]))


def _join_slices(slices: Tensor, count: int) -> Tensor:
    """Join ``(N * count, 3, h, w)`` to ``(N, 3, h, count * (w + seam) - seam)``."""
    padded = F.pad(slices, (0, SEAM), value=PAPER[0])
    return padded.reshape(-1, count, *padded.shape[1:]).movedim(1, 3).flatten(3)[..., :-SEAM]
