"""Sheet: the figure of one snapshot, every image of the probe with its evidence and the prediction of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import SEAM, WIDTH, Arrangement, arrange
from lightning_gradcam.render.canvas import Canvas, find_canvas_type
from lightning_gradcam.render.captions import Captions
from lightning_gradcam.render.colors import INK, PAPER, ColorTable
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.render.legend import Heading, draw_footer, draw_header, stack_parts
from lightning_gradcam.render.outline import draw_outline
from lightning_gradcam.render.pixel_maps import PEAK_DESCRIPTION, to_drawable
from lightning_gradcam.render.tiles import TileStyle, draw_grid, join_tiles
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation


@dataclass(frozen=True)
class Sheet:
    """Everything that figures of a probe share between snapshots, prepared once on the probe's device.

    Args:
        canvas: The images as tiles.
        captions: Their captions.
        bold: Font of the title.
        columns: Images per row.
        interpolation: How maps are enlarged.
        image_size: Spatial dimensions of the images; maps as fine as them are drawn by `to_drawable`.
        tile_size: Height and width of one drawn view.
        region: ``(N, *spatial)`` bool, the explained pixels of segmentation models.
    """

    canvas: Canvas
    captions: Captions
    bold: Font
    columns: int
    interpolation: Interpolation = "bilinear"
    image_size: tuple[int, ...] = ()
    tile_size: tuple[int, int] = (1, 1)
    region: Tensor | None = None

    @staticmethod
    def from_probe(
        probe: Probe,
        images: Tensor,
        names: Sequence[str],
        colormap: str = "inferno",
        arrangement: Arrangement | None = None,
        interpolation: Interpolation = "bilinear",
        score_word: str = "score",
    ) -> Sheet:
        """Prepare the sheet of a probe.

        Args:
            probe: The probe, for its labels and sizes.
            images: ``(N, C, *spatial)`` its images, as `restore_images` returns them.
            names: The class names.
            colormap: A matplotlib colormap.
            arrangement: By default the result of `arrange`.
            interpolation: How maps are enlarged.
            score_word: What captions call a score that belongs to no class.
        """
        canvas_type = find_canvas_type(images)
        height, width, max_views = canvas_type.measure_view(images)
        arrangement = arrangement or arrange(len(probe), (height, width), max_views)
        font = Font.load(names, device=images.device)
        color_table = ColorTable.from_colormap(colormap, images.device)
        style = TileStyle(arrangement.size, arrangement.views, color_table, font, arrangement.width)
        canvas = canvas_type.from_images(images, style)
        return Sheet(
            canvas=canvas,
            captions=Captions.from_names(
                names,
                probe.classes,
                font,
                arrangement.cell_width,
                multilabel=probe.multilabel,
                score_word=score_word,
            ),
            bold=Font.load(device=images.device, bold=True),
            columns=arrangement.columns,
            interpolation=interpolation,
            image_size=probe.size,
            tile_size=arrangement.size,
        )

    @property
    def image_tiles(self) -> Tensor:
        """The images as tiles, ``(N, 3, h, w)`` uint8."""
        return self.canvas.image_tiles

    @property
    def font(self) -> Font:
        """The font of captions and facts."""
        return self.captions.font

    def freeze_view(self, evidence: Tensor, centers: CellCenters | None = None) -> Sheet:
        """Return the sheet that shows, for any evidence, the view that this evidence selects."""
        canvas = self.canvas.freeze_view(evidence, centers)
        return self if canvas is self.canvas else replace(self, canvas=canvas)

    def with_region(self, region: Tensor, classes: Tensor) -> Sheet:
        """Return the sheet with an outline around explained pixels.

        Args:
            region: ``(N, *spatial)`` bool.
            classes: ``(N,)`` the class of these pixels.
        """
        return replace(self, region=region, captions=replace(self.captions, region_classes=classes))

    @torch.no_grad()
    def draw(
        self,
        evidence: Tensor,
        map_status: Tensor,
        logits: Tensor,
        heading: Heading,
        *,
        scale: Tensor | None = None,
        scores: Tensor | None = None,
        centers: CellCenters | None = None,
    ) -> Tensor:
        """Draw the figure.

        Args:
            evidence: ``(N, *s)`` signed, of one layer.
            map_status: ``(N,)`` as in `Explanation`.
            logits: ``(N, K)``; without classes (K = 0) captions have no predictions.
            heading: The text at the top.
            scale: The evidence that has the last color in all images; None scales each image separately.
            scores: ``(N,)`` explained scores, shown if there are no classes.
            centers: Centers of the cells in the image; None if they cover it evenly.

        Returns:
            ``(3, height, width)`` uint8 on the probe's device, `WIDTH` pixels wide.
        """
        view = self.freeze_view(evidence, centers)
        overlays = view.draw_overlays(evidence, map_status, scale, centers)
        tiles = join_tiles([view.image_tiles, overlays], SEAM, dim=2)
        cells = torch.cat([tiles, self.captions.draw(logits, scores=scores)], dim=2)
        return self.add_legend(draw_grid(cells, self.columns), heading, scale, self.describe_last_color(evidence))

    def draw_overlays(
        self, evidence: Tensor, map_status: Tensor, scale: Tensor | None = None, centers: CellCenters | None = None
    ) -> Tensor:
        """Draw the images with evidence, ``(N, 3, h, w)`` uint8, and the status of degenerate maps as text on them."""
        reduced = self.reduce_evidence(evidence, scale)
        tiles = self.canvas.draw_overlays(reduced, map_status, scale, self.interpolation, centers)
        if self.region is not None and self.region.ndim == 3:
            left = (tiles.shape[-1] - self.tile_size[1]) // 2
            inner = slice(left, left + self.tile_size[1])
            tiles[..., inner] = draw_outline(tiles[..., inner], self.region)
        bands = self._status_bands.index_select(0, map_status.int())
        height = min(bands.shape[-2], tiles.shape[-2])
        top = self.canvas.message_row - height // 2
        middle = tiles[:, :, top : top + height]
        is_degenerate = (map_status > 0)[:, None, None, None]
        tiles[:, :, top : top + height] = torch.where(is_degenerate, bands[:, :, :height], middle)
        return tiles

    @cached_property
    def _status_bands(self) -> Tensor:
        """The text on a map of each status, ``(len(MapStatus), 3, h, w)`` uint8."""
        characters = self.captions.characters
        codes = self.font.encode([(status.text or "").center(characters) for status in MapStatus], characters)
        coverage = self.font.draw(codes)
        return paint(F.pad(coverage, (0, self.captions.width - coverage.shape[-1])), PAPER, INK)

    def reduce_evidence(self, evidence: Tensor, scale: Tensor | None) -> Tensor:
        """Return the maps that are drawn of evidence ``(N, *s)``, see `to_drawable`."""
        return to_drawable(evidence, self.image_size, self.tile_size, per_image_scale=scale is None)

    def describe_last_color(self, evidence: Tensor) -> str:
        """Return the meaning of the last color for `draw_footer`; empty for the most evidence in the image."""
        return PEAK_DESCRIPTION if tuple(evidence.shape[1:]) == self.image_size else ""

    def draw_footer(self, width: int, scale: Tensor | None, last_color: str) -> Tensor:
        """Draw the footer of a figure with this sheet's colors and marks, see `legend.draw_footer`."""
        has_marks = self.captions.labels is not None
        return draw_footer(self.canvas, self.font, width, scale=scale, has_marks=has_marks, last_color=last_color)

    def add_legend(self, body: Tensor, heading: Heading, scale: Tensor | None, last_color: str) -> Tensor:
        """Add the header and the footer to the body ``(3, h, w)`` of a figure."""
        width = max(body.shape[-1], WIDTH)
        header = draw_header(heading, self.font, self.bold, width)
        return stack_parts([header, body, self.draw_footer(width, scale, last_color)])
