"""Volumes as the slices that hold the most evidence. Depth is the first spatial dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.colors import INK, PAPER, ColorTable, lay_over, to_bytes, to_gray
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.render.photos import SEAM, fit_tiles, restore_photos
from lightning_gradcam.utils.interpolation import Interpolation

SLICES = 3
"""Of one volume, beside one another."""


@dataclass(frozen=True)
class Volumes:
    """Volumes of which slices are chosen by their evidence.

    Args:
        volumes: ``(N, 1 or 3, D, H, W)`` uint8.
        size: Height and width of one slice in the picture.
        count: How many slices of each.
        ramp: Colours of evidence.
        font: For their numbers.
    """

    volumes: Tensor
    size: tuple[int, int]
    count: int
    ramp: ColorTable
    font: Font
    noun: ClassVar[str] = "volume"
    legend: ClassVar[str] = "   the slices with the most evidence"

    @staticmethod
    def extent(photos: Tensor) -> tuple[int, int, int]:
        """Height and width of a slice of volumes ``(N, C, D, H, W)``, and how many are shown of each."""
        depth, height, width = photos.shape[2:]
        return height, width, min(SLICES, depth)

    @staticmethod
    def of(photos: Tensor, size: tuple[int, int], views: int, ramp: ColorTable, font: Font, /) -> Volumes:
        """Volumes ``(N, C, D, H, W)`` uint8, with so many slices of each."""
        return Volumes(photos, size, views, ramp, font)

    @property
    def photos(self) -> Tensor:
        """The middle slices, as long as there is no evidence."""
        return self.freeze_view(self.volumes.new_zeros(len(self.volumes), 1, 1, 1, dtype=torch.float32)).photos

    @property
    def words(self) -> int:
        """The row of a tile that says why a map is degenerate."""
        return self.size[0] // 2

    def freeze_view(self, evidence: Tensor, /) -> Slices:
        """The slices that this evidence chooses."""
        chosen = choose_slices(evidence, self.volumes.shape[2], self.count)
        return Slices.of(self, chosen)

    def overlays(
        self, evidence: Tensor, map_status: Tensor, scale: Tensor | None, interpolation: Interpolation = "bilinear"
    ) -> Tensor:
        """The slices with most evidence, with it, ``(N, 3, h, w)`` uint8."""
        return self.freeze_view(evidence).overlays(evidence, map_status, scale, interpolation)


@dataclass(frozen=True)
class Slices:
    """The same slices of each volume whatever the evidence.

    Args:
        photos: ``(N, 3, h, w)`` uint8, slices beside one another and their numbers below.
        under: ``(N * count, 1, h, w)`` slices in grey in [0, 1].
        chosen: ``(N, count)`` which, from 0.
        depth: How many slices there are.
        ramp: Colours of evidence.
    """

    photos: Tensor
    under: Tensor
    chosen: Tensor
    depth: int
    ramp: ColorTable
    noun: ClassVar[str] = Volumes.noun
    legend: ClassVar[str] = "   the slice with the most evidence at the end"

    @staticmethod
    def of(volumes: Volumes, chosen: Tensor) -> Slices:
        """Cut slices out of volumes."""
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        cut = volumes.volumes.movedim(2, 1)[rows, chosen].flatten(0, 1)
        shown = fit_tiles(cut.expand(-1, 3, -1, -1) / 255, volumes.size)
        depth = volumes.volumes.shape[2]
        numbers = paint(_numbers(chosen, depth, volumes.size[1], volumes.font), INK, PAPER)
        photos = _beside(torch.cat([to_bytes(shown * 255), numbers], dim=2), volumes.count)
        return Slices(photos, to_gray(shown), chosen, depth, volumes.ramp)

    @property
    def words(self) -> int:
        """The row of a tile that says why a map is degenerate."""
        return self.under.shape[-2] // 2

    def freeze_view(self, _: Tensor, /) -> Slices:
        """The same whatever the evidence."""
        return self

    def overlays(
        self, evidence: Tensor, map_status: Tensor, scale: Tensor | None, interpolation: Interpolation = "bilinear"
    ) -> Tensor:
        """Slices with evidence, ``(N, 3, h, w)`` uint8."""
        size = (self.depth, *self.under.shape[-2:])
        heat = [  # one volume after another: all of them, enlarged, could take more memory than training
            to_heatmaps(evidence[i : i + 1], map_status[i : i + 1], size, scale, interpolation)[0].index_select(
                0, chosen
            )
            for i, chosen in enumerate(self.chosen)
        ]
        return _beside(lay_over(self.under, torch.cat(heat), self.ramp), self.chosen.shape[1])


def restore_volumes(images: Tensor, pixels: Normalization | None = None) -> tuple[Tensor, str]:
    """Images ``(N, C, D, H, W)`` to ``(N, 1 or 3, D, H, W)`` uint8 as `restore_photos` does, and how that was done."""
    photos, note = restore_photos(images.flatten(2, 3), pixels)
    if images.shape[1] != 3:
        photos = photos[:, :1]  # grey; bytes, since volumes are large
    photos = to_bytes(photos * 255).reshape(len(images), -1, *images.shape[2:])
    count, size = min(SLICES, images.shape[2]), "×".join(map(str, images.shape[2:]))
    return photos, f"{note}; of {size} volumes {count} of the {images.shape[2]} slices, those with the most evidence"


def choose_slices(evidence: Tensor, depth: int, count: int) -> Tensor:
    """The slices with the most evidence ``(N, count)``, in order, for volumes ``depth`` slices deep.

    Evidence is measured cell by cell, and what lies between is interpolated: so it is summed over each layer of cells
    across the depth, and the middle slice of a layer stands for it. (Of maps shallower than ``count`` cells, as many
    layers are interpolated.) Among equals the middle of the volume goes first.

    >>> evidence = torch.tensor([0.0, 9.0, 0.0, 0.0, 5.0, 4.0, 0.0, 0.0]).reshape(1, 8, 1, 1)
    >>> choose_slices(evidence, depth=32, count=3)
    tensor([[ 6, 18, 22]])
    """
    planes = evidence.relu().nan_to_num(0, 0, 0).sum((2, 3))
    cells = min(max(planes.shape[1], count), depth)
    planes = F.interpolate(planes[:, None], size=cells, mode="linear", align_corners=False)[:, 0]
    middle_first = (torch.arange(cells, device=planes.device) * 2 - cells + 1).abs().argsort(stable=True)
    best = planes[:, middle_first].argsort(dim=1, descending=True, stable=True)[:, :count]
    return (middle_first[best].sort(1).values * 2 + 1) * depth // (2 * cells)


def _numbers(chosen: Tensor, depth: int, width: int, font: Font) -> Tensor:
    """Coverage ``(N * count, font height, width)`` of "slice 12 of 32", counted from 1, or as much as there is room."""
    digits = len(str(depth))
    number = font.fixed(chosen.flatten() + 1, digits, 0)
    for before, behind in (("slice ", f" of {depth}"), ("", f" of {depth}"), ("", f"/{depth}")):
        if (len(before) + digits + len(behind)) * font.width <= width:
            break
    words = [font.encode([word])[0].expand(len(number), -1) for word in (before, behind)]
    coverage = font.draw(torch.cat([words[0], number, words[1]], dim=1))[..., :width]
    return F.pad(coverage, (0, width - coverage.shape[-1]))


def _beside(slices: Tensor, count: int) -> Tensor:
    """``(N * count, 3, h, w)`` to ``(N, 3, h, count * (w + seam) - seam)``."""
    apart = F.pad(slices, (0, SEAM), value=PAPER[0])
    return apart.reshape(-1, count, *apart.shape[1:]).movedim(1, 3).flatten(3)[..., :-SEAM]
