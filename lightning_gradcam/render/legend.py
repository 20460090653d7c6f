"""Header and footer of a figure: title, details, and the meaning of colors and marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.render.arrangement import GAP
from lightning_gradcam.render.canvas import Canvas
from lightning_gradcam.render.colors import BAR_GRAY, FAINT, INK, PAPER, Color, blend_heatmaps
from lightning_gradcam.render.font import Font, paint


@dataclass(frozen=True)
class Heading:
    """Text at the top of a figure.

    Args:
        title: The first line.
        facts: The second line: texts, and codes of `Font` for numbers that are on the device.
    """

    title: str
    facts: Sequence[str | Tensor] = ()


def draw_header(heading: Heading, font: Font, bold: Font, width: int) -> Tensor:
    """Draw the title and the facts, ``(3, h, width)`` uint8."""
    title_line = draw_line([heading.title], bold, width, above=GAP)
    return torch.cat([title_line, draw_line(heading.facts, font, width)], 1) if heading.facts else title_line


def draw_footer(
    canvas: Canvas, font: Font, width: int, *, scale: Tensor | None, has_marks: bool, last_color: str = ""
) -> Tensor:
    """Draw the scale bar and the meaning of its ends.

    Args:
        canvas: The canvas of the figure.
        font: Font of the text.
        width: Width of the figure in pixels.
        scale: The evidence that has the last color in all images; None if each image is scaled separately.
        has_marks: Whether captions mark right and wrong predictions.
        last_color: The meaning of the last color, by default the most evidence in the image.

    Returns:
        ``(3, h, w)`` uint8; ``w`` exceeds ``width`` if the text needs more.
    """
    left: list[str | Tensor] = ["no evidence " if scale is None else "evidence 0 "]
    right: list[str | Tensor] = [f" {last_color or f'the most in this {canvas.noun}'}"]
    if scale is not None:
        right = [" ≥ ", font.encode_scientific(scale), f", one scale for all {canvas.noun}s"]
    if has_marks:
        right.append("   ✓ right  ✗ wrong")
    right.append(canvas.footnote)
    levels = torch.linspace(0, 1, 160, device=canvas.color_table.table.device).expand(1, font.height - 6, -1)
    bar = blend_heatmaps(torch.full_like(levels, BAR_GRAY)[:, None], levels, canvas.color_table)[0]
    bar = F.pad(bar, (0, 0, 3, 3), value=PAPER[0])
    left_text, right_text = (paint(font.draw(font.encode_line(parts)), FAINT, PAPER) for parts in (left, right))
    line = torch.cat([left_text, bar, right_text], dim=2)
    return _pad_to_width(F.pad(line, (GAP, 0, 0, GAP), value=PAPER[0]), width)


def draw_line(parts: Sequence[str | Tensor], font: Font, width: int, above: int = 0, ink: Color = INK) -> Tensor:
    """Draw texts and codes as one line ``(3, h, width)`` uint8, truncated to the width."""
    coverage = font.draw(font.encode_line(parts, (width - 2 * GAP) // font.width))
    return paint(F.pad(coverage, (GAP, width - GAP - coverage.shape[-1], above, 0)), ink, PAPER)


def stack_parts(parts: Sequence[Tensor]) -> Tensor:
    """Stack parts ``(3, h, w)`` of a figure vertically, padded to the same width."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([_pad_to_width(part, width) for part in parts], dim=1)


def _pad_to_width(part: Tensor, width: int) -> Tensor:
    return F.pad(part, (0, max(width - part.shape[-1], 0)), value=PAPER[0])
