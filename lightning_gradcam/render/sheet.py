"""The picture of one look: every image of the probe with its evidence, and what the model said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.canvas import Canvas, find_canvas_type
from lightning_gradcam.render.captions import (
    GAP,
    draw_caption,
    draw_footer,
    draw_header,
    encode_class,
    encode_label,
    encode_prediction,
    encode_score,
    fit_name_width,
    stack_parts,
)
from lightning_gradcam.render.colors import INK, PAPER, ColorTable
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.render.photos import SEAM
from lightning_gradcam.targets.logits import predictions
from lightning_gradcam.utils.interpolation import Interpolation

PEAKS = 0.01
"""The share of pixels that have the last colour together, as Smilkov et al. 2017, arXiv:1706.03825, draw theirs."""

SAID = "the strongest 1% of its pixels"
"""What the last colour means then."""


def to_drawable(evidence: Tensor, size: tuple[int, ...], tile: tuple[int, int], own: bool) -> Tensor:
    """What is drawn of evidence ``(N, *s)``: of coarse maps, all that they are.

    Where a map is as fine as its image, pixels that a smaller tile has no room for are averaged, and where it is scaled
    by itself, what exceeds its strongest hundredth is cut off.

    Args:
        evidence: Signed.
        size: The images' spatial dimensions.
        tile: Height and width of a drawn image.
        own: Whether every map is scaled by itself.

    >>> to_drawable(torch.arange(200.0).reshape(1, 10, 20), (10, 20), (10, 20), own=True).max()
    tensor(198.)
    """
    if tuple(evidence.shape[1:]) != size:
        return evidence
    maps = evidence.relu()
    if len(size) == 2 and (tile[0] < size[0] or tile[1] < size[1]):
        maps = F.interpolate(maps[:, None], size=tile, mode="bilinear", antialias=True)[:, 0]
    if not own:
        return maps
    flat = maps.flatten(1)
    limit = flat.topk(math.ceil(PEAKS * flat.shape[1])).values[:, -1:]
    return torch.where(limit > 0, flat.minimum(limit), flat).reshape(maps.shape)


def draw_outline(tiles: Tensor, region: Tensor) -> Tensor:
    """Pictures ``(N, 3, h, w)`` uint8 with a line around a region ``(N, H, W)`` bool: white inside of it, black beside.

    >>> region = torch.zeros(1, 5, 5, dtype=torch.bool)
    >>> region[0, 1:4, 1:4] = True
    >>> draw_outline(torch.full((1, 3, 5, 5), 7, dtype=torch.uint8), region)[0, 0, 2]
    tensor([  0, 255,   7, 255,   0], dtype=torch.uint8)
    """
    size = (tiles.shape[-2], tiles.shape[-1])
    inside = F.interpolate(region[:, None].float(), size=size, mode="nearest-exact")
    grown, shrunk = F.max_pool2d(inside, 3, 1, 1), 1 - F.max_pool2d(1 - inside, 3, 1, 1)
    white, black = (inside > shrunk).expand_as(tiles), (grown > inside).expand_as(tiles)
    return torch.where(white, 255, torch.where(black, 0, tiles)).to(torch.uint8)


WIDTH = 1024
"""No picture is wider, in pixels: more is scaled down by the browser."""

_TILE = 200  # the most that a photo takes of the width
_LEGIBLE = 84  # the least: a caption of twelve characters


class Arrangement(NamedTuple):
    """How photos are laid out: so many in a row, height and width of a view, and how many views of each."""

    columns: int
    size: tuple[int, int]
    views: int = 1


@dataclass(frozen=True)
class Sheet:
    """What stays the same from look to look, prepared once on the probe's device.

    Args:
        canvas: The images at the size of their tiles.
        ramp: Colours of evidence.
        font: For captions.
        bold: For the title.
        names: ``(K, characters)`` codes of the classes' names.
        labels: ``(N,)`` classes, where there are labels.
        columns: Photos per row.
        interpolation: How maps are enlarged.
        multilabel: Whether each image may have several labels, so that probabilities are each class's own.
        size: The images' spatial dimensions: maps as fine are drawn by other means, see `fine.drawable`.
        region: Where classes of pixels are explained, these pixels ``(N, *spatial)`` bool, and the classes ``(N,)``.
    """

    canvas: Canvas
    ramp: ColorTable
    font: Font
    bold: Font
    names: Tensor
    labels: Tensor | None
    columns: int
    interpolation: Interpolation = "bilinear"
    multilabel: bool = False
    size: tuple[int, ...] = ()
    region: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def of(
        probe: Probe,
        photos: Tensor,
        names: Sequence[str],
        colormap: str = "inferno",
        arrangement: Arrangement | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> Sheet:
        """Prepare the sheet of a probe.

        Args:
            probe: The images and their labels.
            photos: ``(N, C, *spatial)``: the images as `restore` gives them.
            names: What the classes are called, one for each.
            colormap: A matplotlib colormap.
            arrangement: By default what `arrange` finds.
            interpolation: How maps are enlarged.
        """
        kind = find_canvas_type(photos)
        height, width, most = kind.extent(photos)
        columns, size, views = arrangement or arrange(len(probe), (height, width), most)
        font, ramp = Font.load(names, device=photos.device), ColorTable.named(colormap, photos.device)
        canvas = kind.of(photos, size, views, ramp, font)
        return Sheet(
            canvas=canvas,
            ramp=ramp,
            font=font,
            bold=Font.load(names, device=photos.device, bold=True),
            names=font.encode(list(names), fit_name_width(_characters(canvas.photos.shape[-1], font))),
            labels=probe.classes,
            columns=columns,
            interpolation=interpolation,
            multilabel=probe.multilabel,
            size=probe.size,
        )

    @property
    def photos(self) -> Tensor:
        """``(N, 3, h, w)`` uint8, at the size of their tiles."""
        return self.canvas.photos

    def freeze_view(self, evidence: Tensor) -> Sheet:
        """The sheet that shows for any evidence what is chosen by this one."""
        canvas = self.canvas.freeze_view(evidence)
        return self if canvas is self.canvas else replace(self, canvas=canvas)

    @property
    def characters(self) -> int:
        """How many fit under one photo."""
        return _characters(self.photos.shape[-1], self.font)

    @torch.no_grad()
    def draw(
        self,
        evidence: Tensor,
        map_status: Tensor,
        logits: Tensor,
        *,
        title: str,
        facts: Sequence[str | Tensor] = (),
        scale: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> Tensor:
        """The picture, ``(3, height, width)`` uint8 on the probe's device, at most 1024 pixels wide.

        Args:
            evidence: ``(N, *s)`` signed, of one layer.
            map_status: ``(N,)`` as in `Explanation`.
            logits: ``(N, K)``; without classes (K = 0) nothing is said of predictions.
            title: The head line.
            facts: The line below it: words, and codes of `Font` for numbers that are on the device.
            scale: The evidence that has the last colour, for all images; None scales every image by itself.
            scores: ``(N,)`` what is explained, said where there are no classes.
        """
        sheet = self.freeze_view(evidence)
        tiles = sheet.overlays(evidence, map_status, scale)
        between = tiles.new_full((len(tiles), 3, SEAM, tiles.shape[-1]), PAPER[0])
        cells = torch.cat([sheet.photos, between, tiles, sheet.captions(logits, scores=scores)], dim=2)
        grid = make_grid(cells, nrow=self.columns, padding=GAP, pad_value=PAPER[0])
        foot_line = draw_footer(
            self.font, self.ramp, scale, self.labels is not None, grid.shape[-1], self.canvas, self.most(evidence)
        )
        width = foot_line.shape[-1]
        return stack_parts([draw_header(title, facts, self.font, self.bold, width), grid, foot_line])

    def overlays(self, evidence: Tensor, map_status: Tensor, scale: Tensor | None = None) -> Tensor:
        """Photos with evidence, ``(N, 3, h, w)``; on a degenerate map it says why."""
        tiles = self.canvas.overlays(self.shown(evidence, scale), map_status, scale, self.interpolation)
        if self.region is not None and self.region[0].ndim == 3:
            tiles = draw_outline(tiles, self.region[0])
        band = self._bands.index_select(0, map_status.int())
        height = min(band.shape[-2], tiles.shape[-2])
        top = self.canvas.words - height // 2
        middle = tiles[:, :, top : top + height]
        tiles[:, :, top : top + height] = torch.where(
            (map_status > 0)[:, None, None, None], band[:, :, :height], middle
        )
        return tiles

    @cached_property
    def _bands(self) -> Tensor:
        """What is said on a degenerate map, ``(len(MapStatus), 3, h, w)``."""
        words = self.font.encode([(status.text or "").center(self.characters) for status in MapStatus], self.characters)
        coverage = self.font.draw(words)
        return paint(F.pad(coverage, (0, self.photos.shape[-1] - coverage.shape[-1])), PAPER, INK)

    def shown(self, evidence: Tensor, scale: Tensor | None) -> Tensor:
        """What is drawn of the evidence, see `fine.drawable`."""
        height, width = self.photos.shape[-2:]
        return to_drawable(evidence, self.size, (height, width), scale is None)

    def most(self, evidence: Tensor) -> str:
        """What the last colour means where it is not the most in the image; words for `draw_footer`."""
        return SAID if tuple(evidence.shape[1:]) == self.size else ""

    def right(self, predicted: Tensor) -> Tensor | None:
        """``(N,)`` whether the predicted class is the label, where there are labels."""
        return None if self.labels is None else predicted == self.labels

    def captions(self, logits: Tensor, with_label: bool = True, scores: Tensor | None = None) -> Tensor:
        """Label and prediction under each photo, or without classes the score, ``(N, 3, height, w)``."""
        lines, right = [], None
        if self.labels is not None and with_label:
            lines.append(encode_label(self.font, self.names, self.labels, self.characters))
        if logits.shape[1]:
            best = predictions(logits, self.multilabel)
            right = self.right(best[1])
            lines.append(encode_prediction(self.font, self.names, best, right, self.characters))
        elif self.region is not None:
            lines.append(encode_label(self.font, self.names, self.region[1], self.characters, "class"))
        elif scores is not None:
            lines.append(encode_score(self.font, scores, self.characters))
        if not lines:
            return self.photos.new_empty(len(self.photos), 3, 0, self.photos.shape[-1])
        return draw_caption(self.font, lines, self.photos.shape[-1], right)

    def of_class(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Which class an overlay explains, and how sure the model is of it, ``(N, 3, height, w)``."""
        line = encode_class(self.font, self.names, logits, classes, self.characters, self.multilabel)
        return draw_caption(self.font, [line], self.photos.shape[-1], None)


def arrange(count: int, size: tuple[int, int], views: int = 1, width: int = WIDTH) -> Arrangement:
    """Lay ``count`` photos of ``size`` out on a picture of that width, so many ``views`` of each beside one another.

    >>> arrange(16, (28, 28)), arrange(12, (224, 224))
    (Arrangement(columns=8, size=(112, 112), views=1), Arrangement(columns=6, size=(166, 166), views=1))
    """
    proportion = views * size[1] / size[0]
    columns = max(1, min(count, round(8 / math.sqrt(proportion)), width // (_LEGIBLE + GAP)))
    columns = math.ceil(count / math.ceil(count / columns))  # rows of the same length, where that goes
    most = min((width - GAP) // columns - GAP, round(_TILE * max(proportion, 1)))
    return Arrangement(columns, scale_tile(size, (most + SEAM) // views - SEAM), views)


def scale_tile(size: tuple[int, int], width: int) -> tuple[int, int]:
    """A tile at most ``width`` wide with the proportions of ``size``; whole multiples keep small pixels square."""
    if size[1] * 2 <= width:
        factor = width // size[1]
        return size[0] * factor, size[1] * factor
    return max(1, round(size[0] * width / size[1])), width


def _characters(width: int, font: Font) -> int:
    return (width - 2) // font.width
