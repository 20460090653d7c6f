"""The picture of one look: every image of the probe with its evidence, and what the model said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from lightning_gradcam.explanation import FLAWS, Interpolation, predictions
from lightning_gradcam.probe import Probe
from lightning_gradcam.render.canvas import Canvas, kind_of
from lightning_gradcam.render.captions import GAP, caption, foot, head, label_line, name_width, prediction_line, stack
from lightning_gradcam.render.colors import INK, PAPER, Ramp
from lightning_gradcam.render.fine import SAID, drawable
from lightning_gradcam.render.photos import SEAM
from lightning_gradcam.render.text import Font, paint

WIDTH = 1024
"""No picture is wider, in pixels: more is scaled down by the browser."""

_TILE = 200  # the most that a photo takes of the width
_LEGIBLE = 84  # the least: a caption of twelve characters


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
        size: The images' spatial dimensions: maps as fine are drawn by other means, see `fine.drawable`.
    """

    canvas: Canvas
    ramp: Ramp
    font: Font
    bold: Font
    names: Tensor
    labels: Tensor | None
    columns: int
    interpolation: Interpolation = "bilinear"
    size: tuple[int, ...] = ()

    @staticmethod
    def of(
        probe: Probe,
        photos: Tensor,
        names: Sequence[str],
        colormap: str = "inferno",
        arrangement: tuple[int, tuple[int, int]] | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> Sheet:
        """Prepare the sheet of a probe.

        Args:
            probe: The images and their labels.
            photos: ``(N, C, *spatial)``: the images as `restore` gives them.
            names: What the classes are called, one for each.
            colormap: A matplotlib colormap.
            arrangement: Columns, and height and width of a tile, which then shows one view of its image; by default
                what `arrange` finds.
            interpolation: How maps are enlarged.
        """
        kind = kind_of(photos)
        height, width, views = kind.extent(photos) if arrangement is None else (*arrangement[1], 1)
        columns, size = arrangement or arrange(len(probe), (height, width), views)
        font, ramp = Font.load(names, device=photos.device), Ramp.named(colormap, photos.device)
        canvas = kind.of(photos, size, views, ramp, font)
        return Sheet(
            canvas=canvas,
            ramp=ramp,
            font=font,
            bold=Font.load(names, device=photos.device, bold=True),
            names=font.encode(list(names), name_width(_characters(canvas.photos.shape[-1], font))),
            labels=probe.classes,
            columns=columns,
            interpolation=interpolation,
            size=probe.size,
        )

    @property
    def photos(self) -> Tensor:
        """``(N, 3, h, w)`` uint8, at the size of their tiles."""
        return self.canvas.photos

    def steady(self, evidence: Tensor) -> Sheet:
        """The sheet that shows for any evidence what is chosen by this one."""
        return replace(self, canvas=self.canvas.steady(evidence))

    @property
    def characters(self) -> int:
        """How many fit under one photo."""
        return _characters(self.photos.shape[-1], self.font)

    @torch.no_grad()
    def draw(
        self,
        evidence: Tensor,
        flaws: Tensor,
        logits: Tensor,
        *,
        title: str,
        facts: Sequence[str | Tensor] = (),
        scale: Tensor | None = None,
    ) -> Tensor:
        """The picture, ``(3, height, width)`` uint8 on the probe's device, at most 1024 pixels wide.

        Args:
            evidence: ``(N, *s)`` signed, of one layer.
            flaws: ``(N,)`` as in `Explanation`.
            logits: ``(N, K)``; without classes (K = 0) nothing is said of predictions.
            title: The head line.
            facts: The line below it: words, and codes of `Font` for numbers that are on the device.
            scale: The evidence that has the last colour, for all images; None scales every image by itself.
        """
        sheet = self.steady(evidence)
        tiles = sheet.overlays(evidence, flaws, scale)
        between = tiles.new_full((len(tiles), 3, SEAM, tiles.shape[-1]), PAPER[0])
        cells = torch.cat([sheet.photos, between, tiles, sheet.captions(logits)], dim=2)
        grid = make_grid(cells, nrow=self.columns, padding=GAP, pad_value=PAPER[0])
        foot_line = foot(
            self.font, self.ramp, scale, self.labels is not None, grid.shape[-1], self.canvas, self.most(evidence)
        )
        width = foot_line.shape[-1]
        return stack([head(title, facts, self.font, self.bold, width), grid, foot_line])

    def overlays(self, evidence: Tensor, flaws: Tensor, scale: Tensor | None = None) -> Tensor:
        """Photos with evidence, ``(N, 3, h, w)``; on a degenerate map it says why."""
        tiles = self.canvas.overlays(self.shown(evidence, scale), flaws, scale, self.interpolation)
        words = self.font.encode([(flaw or "").center(self.characters) for flaw in FLAWS], self.characters)
        coverage = self.font.draw(words)
        band = paint(F.pad(coverage, (0, tiles.shape[-1] - coverage.shape[-1])), PAPER, INK)[flaws.long()]
        height = min(band.shape[-2], tiles.shape[-2])
        top = self.canvas.words - height // 2
        middle = tiles[:, :, top : top + height]
        tiles[:, :, top : top + height] = torch.where((flaws > 0)[:, None, None, None], band[:, :, :height], middle)
        return tiles

    def shown(self, evidence: Tensor, scale: Tensor | None) -> Tensor:
        """What is drawn of the evidence, see `fine.drawable`."""
        height, width = self.photos.shape[-2:]
        return drawable(evidence, self.size, (height, width), scale is None)

    def most(self, evidence: Tensor) -> str:
        """What the last colour means where it is not the most in the image; words for `foot`."""
        return SAID if tuple(evidence.shape[1:]) == self.size else ""

    def right(self, logits: Tensor) -> Tensor | None:
        """``(N,)`` whether the predicted class is the label, where there are labels and classes."""
        return predictions(logits)[1] == self.labels if self.labels is not None and logits.shape[1] else None

    def captions(self, logits: Tensor, with_label: bool = True) -> Tensor:
        """Label and prediction under each photo, ``(N, 3, height, w)``."""
        lines, right = [], self.right(logits)
        if self.labels is not None and with_label:
            lines.append(label_line(self.font, self.names, self.labels, self.characters))
        if logits.shape[1]:
            lines.append(prediction_line(self.font, self.names, logits, right, self.characters))
        if not lines:
            return self.photos.new_empty(len(self.photos), 3, 0, self.photos.shape[-1])
        return caption(self.font, lines, self.photos.shape[-1], right)


def arrange(count: int, size: tuple[int, int], views: int = 1, width: int = WIDTH) -> tuple[int, tuple[int, int]]:
    """Columns, and the height and width of a view, for ``count`` photos of ``size``, so many ``views`` in each column.

    >>> arrange(16, (28, 28)), arrange(16, (224, 224)), arrange(12, (224, 224))
    ((8, (112, 112)), (8, (123, 123)), (6, (166, 166)))
    """
    proportion = views * size[1] / size[0]
    columns = max(1, min(count, round(8 / math.sqrt(proportion)), width // (_LEGIBLE + GAP)))
    columns = math.ceil(count / math.ceil(count / columns))  # rows of the same length, where that goes
    most = min((width - GAP) // columns - GAP, round(_TILE * max(proportion, 1)))
    return columns, scaled(size, (most + SEAM) // views - SEAM)


def scaled(size: tuple[int, int], width: int) -> tuple[int, int]:
    """A tile at most ``width`` wide with the proportions of ``size``; whole multiples keep small pixels square."""
    if size[1] * 2 <= width:
        factor = width // size[1]
        return size[0] * factor, size[1] * factor
    return max(1, round(size[0] * width / size[1])), width


def _characters(width: int, font: Font) -> int:
    return (width - 2) // font.width
