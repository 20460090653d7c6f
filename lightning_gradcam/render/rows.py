"""The picture of several methods side by side: every image once, and below it one overlay per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from lightning_gradcam.render.canvas import kind_of
from lightning_gradcam.render.captions import GAP, foot, head, stack
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.sheet import WIDTH, Sheet, arrange
from lightning_gradcam.render.text import paint

_NAME = 24
"""A method's name takes no more characters than this."""

_CHARACTER = 7  # pixels, as wide as the font is


@dataclass(frozen=True)
class Row:
    """What one method says.

    Args:
        name: Of the method.
        evidence: ``(N, *s)`` signed.
        flaws: ``(N,)`` as in `Explanation`.
        scale: The evidence that has the last colour; None scales every image by itself.
    """

    name: str
    evidence: Tensor
    flaws: Tensor
    scale: Tensor | None = None


def arrange_beside(names: Sequence[str], photos: Tensor) -> tuple[int, tuple[int, int]]:
    """As `arrange`, with room for the methods' names at the left and one view of each of ``photos``."""
    margin = min(max(map(len, names)), _NAME) * _CHARACTER + 2 * GAP
    return arrange(len(photos), kind_of(photos).extent(photos)[:2], width=WIDTH - margin)


@torch.no_grad()
def draw_rows(
    sheet: Sheet,
    rows: Sequence[Row],
    logits: Tensor,
    *,
    title: str,
    facts: Sequence[str | Tensor] = (),
    own_scales: bool = False,
) -> Tensor:
    """The picture, ``(3, height, width)`` uint8 on the probe's device.

    Args:
        sheet: Prepared with `arrange_beside`.
        rows: One per method, from top to bottom.
        logits: ``(N, K)``.
        title: The head line.
        facts: The line below it.
        own_scales: Whether each row has a scale of its own, so that the foot cannot tell it.
    """
    sheet = sheet.steady(rows[0].evidence)
    between = sheet.photos.new_full((len(sheet.photos), 3, 2, sheet.photos.shape[-1]), PAPER[0])
    overlays = [sheet.overlays(row.evidence, row.flaws, row.scale) for row in rows]
    parts = [sheet.photos]
    for tiles in overlays:
        parts += [between, tiles]
    cells = torch.cat([*parts, sheet.captions(logits)], dim=2)
    grid = make_grid(cells, nrow=sheet.columns, padding=GAP, pad_value=PAPER[0])
    if len(cells) == 1:  # which make_grid leaves without padding
        grid = F.pad(cells[0], (GAP, GAP, GAP, GAP), value=PAPER[0])
    body = torch.cat(
        [_names(sheet, [row.name for row in rows], overlays[0].shape[2], cells.shape[2], grid.shape[1]), grid], dim=2
    )
    scale = None if own_scales else rows[0].scale
    fine = [words for row in rows if (words := sheet.most(row.evidence))]
    most = fine[0] if len(fine) == len(rows) else f"the most in this image, or {fine[0]}" if fine else ""
    most = "the most of its method in all looks" if own_scales else most
    foot_line = foot(sheet.font, sheet.ramp, scale, sheet.labels is not None, body.shape[-1], sheet.canvas, most)
    return stack([head(title, facts, sheet.font, sheet.bold, foot_line.shape[-1]), body, foot_line])


def _names(sheet: Sheet, names: Sequence[str], overlay: int, cell: int, height: int) -> Tensor:
    """The methods' names at the middles of their overlays, ``(3, height, width)``, for every row of photos."""
    coverage = sheet.font.draw(sheet.font.encode(list(names), min(max(map(len, names)), _NAME)))
    photo, line = sheet.photos.shape[-2], coverage.shape[-2]
    above = max((overlay - line) // 2, 0)
    each = F.pad(coverage, (GAP, GAP, 2 + above, overlay - line - above))  # as high as an overlay with the gap above it
    block = F.pad(torch.cat(list(each)), (0, 0, GAP + photo, cell - photo - len(names) * (overlay + 2)))
    beside = block.repeat(height // (cell + GAP), 1)
    return paint(F.pad(beside, (0, 0, 0, height - beside.shape[0])), INK, PAPER)
