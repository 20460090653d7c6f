"""The picture of several maps of each image: the image once, and below it one overlay per method, score or side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.render.canvas import find_canvas_type
from lightning_gradcam.render.captions import GAP, draw_footer, draw_header, stack_parts
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.font import paint
from lightning_gradcam.render.sheet import WIDTH, Arrangement, Sheet, arrange

_NAME = 24
"""A method's name takes no more characters than this."""

BEST = "best"
"""What stands beside the prediction, where there are other classes above it."""

_CHARACTER = 7  # pixels, as wide as the font is


@dataclass(frozen=True)
class MapRow:
    """What one method says, or of one of several scores, or of one side of a pair.

    Args:
        name: Of the method, the score or the side.
        evidence: ``(N, *s)`` signed.
        map_status: ``(N,)`` as in `Explanation`.
        scale: The evidence that has the last colour; None scales every image by itself.
        classes: ``(N,)`` which class of each image it explains, where rows differ in that; -1 is none.
        sheet: Where it is of other photos than the row above, theirs: they are shown first.
    """

    name: str
    evidence: Tensor
    map_status: Tensor
    scale: Tensor | None = None
    classes: Tensor | None = None
    sheet: Sheet | None = None


def arrange_with_names(names: Sequence[str], photos: Tensor) -> Arrangement:
    """As `arrange`, with room for the methods' names at the left."""
    margin = min(max(map(len, names)), _NAME) * _CHARACTER + 2 * GAP
    height, width, views = find_canvas_type(photos).extent(photos)
    return arrange(len(photos), (height, width), views, WIDTH - margin)


@torch.no_grad()
def draw_rows(
    sheet: Sheet,
    rows: Sequence[MapRow],
    logits: Tensor,
    *,
    title: str,
    facts: Sequence[str | Tensor] = (),
    own_scales: bool = False,
    scores: Tensor | None = None,
) -> Tensor:
    """The picture, ``(3, height, width)`` uint8 on the probe's device.

    Args:
        sheet: Prepared with `arrange_with_names`.
        rows: From top to bottom.
        logits: ``(N, K)``.
        title: The head line.
        facts: The line below it.
        own_scales: Whether each row has a scale of its own, so that the foot cannot tell it.
        scores: ``(N,)`` what is explained, said where there are no classes.
    """
    canvas, sheet = sheet.canvas, sheet.freeze_view(_together(rows))
    between = sheet.photos.new_full((len(sheet.photos), 3, 2, sheet.photos.shape[-1]), PAPER[0])
    parts, middles = [sheet.photos], []
    for row in rows:
        own = row.sheet.freeze_view(row.evidence) if row.sheet else sheet
        parts += [between, own.photos] if row.sheet else []
        tiles = own.overlays(row.evidence, row.map_status, row.scale)
        middles.append(sum(part.shape[2] for part in parts) + 2 + tiles.shape[2] // 2)
        parts += [between, tiles]
        parts += [] if row.classes is None else [sheet.of_class(logits, row.classes)]
    cells = torch.cat([*parts, sheet.captions(logits, scores=scores)], dim=2)
    grid = make_grid(cells, nrow=sheet.columns, padding=GAP, pad_value=PAPER[0])
    if len(cells) == 1:  # which make_grid leaves without padding
        grid = F.pad(cells[0], (GAP, GAP, GAP, GAP), value=PAPER[0])
    beside = [row.name for row in rows]
    if logits.shape[1] and any(
        row.classes is not None for row in rows
    ):  # else the last line looks like one more of them
        beside, middles = [*beside, BEST], [*middles, cells.shape[2] - 1 - sheet.font.height // 2]
    names = _names(sheet, beside, middles, cells.shape[2], grid.shape[1])
    body = torch.cat([names, grid], dim=2)
    scale = None if own_scales else rows[0].scale
    fine = [words for row in rows if (words := sheet.most(row.evidence))]
    most = fine[0] if len(fine) == len(rows) else f"the most in this image, or {fine[0]}" if fine else ""
    most = "the most of its method in all looks" if own_scales else most
    foot_line = draw_footer(sheet.font, sheet.ramp, scale, sheet.labels is not None, body.shape[-1], canvas, most)
    return stack_parts([draw_header(title, facts, sheet.font, sheet.bold, foot_line.shape[-1]), body, foot_line])


def _together(rows: Sequence[MapRow]) -> Tensor:
    """What all methods find, ``(N, *s)``, each with the same weight: none alone decides what is shown of a volume."""
    size = tuple(rows[0].evidence.shape[1:])
    return torch.stack([to_heatmaps(row.evidence, row.map_status, size) for row in rows]).mean(0)


def _names(sheet: Sheet, names: Sequence[str], middles: Sequence[int], cell: int, height: int) -> Tensor:
    """The rows' names at the middles of their overlays, ``(3, height, width)``, for every row of photos."""
    coverage = sheet.font.draw(sheet.font.encode(list(names), min(max(map(len, names)), _NAME)))
    block = coverage.new_zeros(cell + GAP, coverage.shape[2] + 2 * GAP)
    for name, middle in zip(coverage, middles, strict=True):
        top = GAP + middle - len(name) // 2
        block[top : top + len(name), GAP:-GAP] = name[: max(len(block) - top, 0)]
    beside = block.repeat(height // (cell + GAP), 1)
    return paint(F.pad(beside, (0, 0, 0, height - beside.shape[0])), INK, PAPER)
