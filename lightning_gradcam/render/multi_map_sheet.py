"""Figure of several maps of each image: the image once, and below it one named overlay per method, score or side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.render.arrangement import GAP, SEAM, WIDTH
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.render.tiles import draw_grid, join_tiles
from lightning_gradcam.utils.cell_centers import CellCenters

BEST = "best"
"""The name next to the prediction if rows above it explain other classes."""


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
    """One drawn row of a cell: ``(N, 3, h, w)`` uint8, with room for its name above its overlay."""

    tiles: Tensor
    name_top: int


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
        sheet: The images.
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
    names = [row.name for row in rows]
    captions = view.captions.draw(logits, scores=scores)
    if logits.shape[1] and any(row.classes is not None for row in rows):
        # Without a name, the prediction would look like one more of the explained classes.
        names.append(BEST)
        blocks.append(_Block(_add_room(captions, view.font.height), 0))
    elif captions.shape[2]:
        blocks.append(_Block(captions, 0))
    cells = torch.cat([view.image_tiles, *(block.tiles for block in blocks)], dim=2)
    grid = draw_grid(cells, sheet.columns)
    body = F.pad(grid, (0, max(WIDTH - grid.shape[2], 0)), value=PAPER[0])
    tops = accumulate((block.tiles.shape[2] for block in blocks), initial=view.image_tiles.shape[2])
    for name, block, top in zip(names, blocks, tops, strict=False):
        _write_name(body, sheet.font, name, top + block.name_top, cells.shape[2])
    last_color = "the most of its method in all snapshots" if has_row_scales else _describe_last_color(view, rows)
    return sheet.add_legend(body, heading, None if has_row_scales else rows[0].scale, last_color)


def _draw_block(view: Sheet, row: MapRow, logits: Tensor) -> _Block:
    """Draw the images of the row if they differ, its overlays, and the classes it explains, each below a seam."""
    row_view = view if row.sheet is None else row.sheet.freeze_view(row.evidence, row.centers)
    overlays = row_view.draw_overlays(row.evidence, row.map_status, row.scale, row.centers)
    tiles = [overlays] if row.sheet is None else [row_view.image_tiles, overlays]
    tiles[-1] = _add_room(overlays, view.font.height)
    block = F.pad(join_tiles(tiles, SEAM, dim=2), (0, 0, SEAM, 0), value=PAPER[0])
    name_top = block.shape[2] - tiles[-1].shape[2]
    if row.classes is not None:
        captions = view.captions.draw_lines(view.captions.encode_probabilities(logits, row.classes))
        block = torch.cat([block, captions], dim=2)
    return _Block(block, name_top)


def _add_room(tiles: Tensor, height: int) -> Tensor:
    """Add room for a name above tiles ``(N, 3, h, w)``."""
    return F.pad(tiles, (0, 0, height, 0), value=PAPER[0])


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


def _write_name(body: Tensor, font: Font, name: str, top: int, cell_height: int) -> None:
    """Write a name over a row of overlays, in each line of the grid ``(3, h, w)``, which is modified."""
    text = paint(font.draw(font.encode([name], (body.shape[2] - 2 * GAP) // font.width)[0]), INK, PAPER)
    for line_top in range(GAP + top, body.shape[1], cell_height + GAP):
        body[:, line_top : line_top + font.height, GAP : GAP + text.shape[2]] = text
