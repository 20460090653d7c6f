"""Figure of several maps of each image: the image once, and below it one overlay per method, score or side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.render.arrangement import GAP, SEAM, WIDTH, Arrangement, arrange
from lightning_gradcam.render.canvas import find_canvas_type
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.font import paint
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.render.tiles import draw_grid, join_tiles
from lightning_gradcam.utils.cell_centers import CellCenters

BEST = "best"
"""The name next to the prediction if rows above it explain other classes."""

_MAX_NAME_LENGTH = 24
_CHARACTER_WIDTH = 7  # pixels, as wide as the font is


@dataclass(frozen=True)
class MapRow:
    """Maps of one method, of one of several scores, or of one side of a pair.

    Args:
        name: The name of the method, score or side.
        evidence: ``(N, *s)`` signed.
        map_status: ``(N,)`` as in `Explanation`.
        scale: The evidence that has the last color; None scales each image separately.
        classes: ``(N,)`` the explained class of each image if rows differ in it; -1 for none.
        sheet: The sheet of other images that this row explains; they are drawn above its overlays.
        centers: Centers of the cells in the image; None if they cover it evenly.
    """

    name: str
    evidence: Tensor
    map_status: Tensor
    scale: Tensor | None = None
    classes: Tensor | None = None
    sheet: Sheet | None = None
    centers: CellCenters | None = None


class _Block(NamedTuple):
    """One drawn row of a cell: ``(N, 3, h, w)`` uint8, and the row of pixels at the middle of its overlay."""

    tiles: Tensor
    middle: int


def arrange_with_names(names: Sequence[str], images: Tensor) -> Arrangement:
    """Arrange images ``(N, C, *spatial)`` as `arrange` does, with room for names of rows at the left."""
    margin = min(max(map(len, names)), _MAX_NAME_LENGTH) * _CHARACTER_WIDTH + 2 * GAP
    height, width, views = find_canvas_type(images).measure_view(images)
    return arrange(len(images), (height, width), views, WIDTH - margin)


@torch.no_grad()
def draw_rows(
    sheet: Sheet,
    rows: Sequence[MapRow],
    logits: Tensor,
    heading: Heading,
    *,
    has_row_scales: bool = False,
    scores: Tensor | None = None,
) -> Tensor:
    """Draw the figure.

    Args:
        sheet: Prepared with `arrange_with_names`.
        rows: From top to bottom.
        logits: ``(N, K)``.
        heading: The text at the top.
        has_row_scales: Whether each row has its own scale, so that the footer cannot state one.
        scores: ``(N,)`` explained scores, shown if there are no classes.

    Returns:
        ``(3, height, width)`` uint8 on the probe's device.
    """
    view = sheet.freeze_view(_average_heatmaps(rows), rows[0].centers)
    blocks = [_draw_block(view, row, logits) for row in rows]
    captions = view.captions.draw(logits, scores=scores)
    cells = torch.cat([view.image_tiles, *(block.tiles for block in blocks), captions], dim=2)
    grid = draw_grid(cells, sheet.columns)

    heights = [block.tiles.shape[2] for block in blocks]
    tops = accumulate(heights[:-1], initial=view.image_tiles.shape[2])
    names, middles = [row.name for row in rows], [top + block.middle for top, block in zip(tops, blocks, strict=True)]
    if logits.shape[1] and any(row.classes is not None for row in rows):
        # Without a name, the prediction would look like one more of the explained classes.
        names, middles = [*names, BEST], [*middles, cells.shape[2] - 1 - sheet.font.height // 2]
    body = torch.cat([_draw_names(sheet, names, middles, cells.shape[2], grid.shape[1]), grid], dim=2)

    last_color = "the most of its method in all snapshots" if has_row_scales else _describe_last_color(view, rows)
    return sheet.add_legend(body, heading, None if has_row_scales else rows[0].scale, last_color)


def _draw_block(view: Sheet, row: MapRow, logits: Tensor) -> _Block:
    """Draw the images of the row if they differ, its overlays, and the classes it explains, each below a seam."""
    row_view = view if row.sheet is None else row.sheet.freeze_view(row.evidence, row.centers)
    overlays = row_view.draw_overlays(row.evidence, row.map_status, row.scale, row.centers)
    tiles = [overlays] if row.sheet is None else [row_view.image_tiles, overlays]
    block = F.pad(join_tiles(tiles, SEAM, dim=2), (0, 0, SEAM, 0), value=PAPER[0])
    middle = block.shape[2] - overlays.shape[2] + overlays.shape[2] // 2
    if row.classes is not None:
        captions = view.captions.draw_lines([view.captions.encode_probabilities(logits, row.classes)])
        block = torch.cat([block, captions], dim=2)
    return _Block(block, middle)


def _average_heatmaps(rows: Sequence[MapRow]) -> Tensor:
    """Return the mean heatmaps of all rows, ``(N, *s)``: no single method selects the slices of a volume."""
    size = tuple(rows[0].evidence.shape[1:])
    return torch.stack([to_heatmaps(row.evidence, row.map_status, size) for row in rows]).mean(0)


def _describe_last_color(sheet: Sheet, rows: Sequence[MapRow]) -> str:
    """Return the meaning of the last color if some rows, or all, have maps as fine as the images."""
    descriptions = [description for row in rows if (description := sheet.describe_last_color(row.evidence))]
    if len(descriptions) == len(rows) or not descriptions:
        return descriptions[0] if descriptions else ""
    return f"the most in this image, or {descriptions[0]}"


def _draw_names(sheet: Sheet, names: Sequence[str], middles: Sequence[int], cell_height: int, height: int) -> Tensor:
    """Draw the names at the middles of their rows, ``(3, height, width)`` uint8, once for every line of the grid."""
    coverage = sheet.font.draw(sheet.font.encode(list(names), min(max(map(len, names)), _MAX_NAME_LENGTH)))
    column = coverage.new_zeros(cell_height + GAP, coverage.shape[2] + 2 * GAP)
    for name, middle in zip(coverage, middles, strict=True):
        top = GAP + middle - len(name) // 2
        column[top : top + len(name), GAP:-GAP] = name[: max(len(column) - top, 0)]
    columns = column.repeat(height // (cell_height + GAP), 1)
    return paint(F.pad(columns, (0, 0, 0, height - columns.shape[0])), INK, PAPER)
