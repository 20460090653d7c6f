"""Header and footer of a figure: title, details, and the meaning of colors and marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.render.arrangement import GAP
from lightning_gradcam.render.canvas import Canvas
from lightning_gradcam.render.colors import BAR_GRAY, FAINT, INK, PAPER, Color, blend_heatmaps
from lightning_gradcam.render.font import Font, paint

_BAR_WIDTH = 120  # pixels


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
    """Draw the title and the facts, ``(3, h, width)`` uint8, each in as many lines as it takes."""
    title = draw_text([heading.title], bold, width, above=GAP)
    return torch.cat([title, draw_text(heading.facts, font, width)], 1) if heading.facts else title


def draw_footer(
    canvas: Canvas, font: Font, width: int, *, scale: Tensor | None, has_marks: bool, last_color: str = ""
) -> Tensor:
    """Draw the scale bar, the meaning of its ends, and below it the meaning of marks.

    Args:
        canvas: The canvas of the figure.
        font: Font of the text.
        width: Width of the figure in pixels.
        scale: The evidence that has the last color in all images; None if each image is scaled separately.
        has_marks: Whether captions mark right and wrong predictions.
        last_color: The meaning of the last color, by default the most evidence in the image.

    Returns:
        ``(3, h, width)`` uint8.
    """
    left = "no evidence" if scale is None else "evidence 0"
    right: list[str | Tensor] = [last_color or f"the most in this {canvas.noun}"]
    if scale is not None:
        right = ["≥ ", font.encode_scientific(scale), f", one scale for all {canvas.noun}s"]
    if has_marks:
        right.append(" · ✓ right ✗ wrong")
    right.append(canvas.footnote)
    levels = torch.linspace(0, 1, _BAR_WIDTH, device=canvas.color_table.table.device).expand(1, font.height - 6, -1)
    bar = blend_heatmaps(torch.full_like(levels, BAR_GRAY)[:, None], levels, canvas.color_table)[0]
    bar = F.pad(bar, (font.width, font.width, 3, 3), value=PAPER[0])
    start = GAP + font.count_cells(left) * font.width + bar.shape[-1]
    first_line, *next_lines = wrap_parts(
        right, font, (width - 2 * GAP) // font.width, (width - GAP - start) // font.width
    )
    left_text, right_text = (paint(font.draw(font.encode_line(line)), FAINT, PAPER) for line in ([left], first_line))
    line = _pad_to_width(F.pad(torch.cat([left_text, bar, right_text], dim=2), (GAP, 0), value=PAPER[0]), width)
    lines = [line, *(draw_line(parts, font, width, ink=FAINT) for parts in next_lines)]
    return F.pad(torch.cat(lines, dim=1), (0, 0, 0, GAP), value=PAPER[0])


def draw_text(parts: Sequence[str | Tensor], font: Font, width: int, above: int = 0, ink: Color = INK) -> Tensor:
    """Draw texts and codes in as many lines as they take, ``(3, h, width)`` uint8."""
    first_line, *next_lines = wrap_parts(parts, font, (width - 2 * GAP) // font.width)
    lines = [
        draw_line(first_line, font, width, above, ink),
        *(draw_line(line, font, width, ink=ink) for line in next_lines),
    ]
    return torch.cat(lines, dim=1)


def draw_line(parts: Sequence[str | Tensor], font: Font, width: int, above: int = 0, ink: Color = INK) -> Tensor:
    """Draw texts and codes as one line ``(3, h, width)`` uint8, truncated to the width."""
    coverage = font.draw(font.encode_line(parts, (width - 2 * GAP) // font.width))
    return paint(F.pad(coverage, (GAP, width - GAP - coverage.shape[-1], above, 0)), ink, PAPER)


def wrap_parts(
    parts: Sequence[str | Tensor], font: Font, characters: int, first: int | None = None
) -> list[list[str | Tensor]]:
    """Break texts and codes into lines, at spaces of the texts; a "·" at the end or start of a line is left out.

    Args:
        parts: Texts, and codes of `Font`.
        font: Their font.
        characters: The most characters of a line.
        first: The most characters of the first line, by default as many.

    >>> wrap_parts(["layer4 · 7×7 cells · gradcam"], Font.load(), 18)
    [['layer4 · 7×7 cells'], ['gradcam']]
    """
    lines: list[list[str | Tensor]] = [[]]
    room = characters if first is None else first
    separator = ""
    for word in _split_words(parts, font, characters):
        if word == ["·"]:
            separator = " · " if lines[-1] else ""
            continue
        length = sum(font.count_cells(part) if isinstance(part, str) else len(part) for part in word)
        if len(separator) + length > room and (lines[-1] or (len(lines) == 1 and first is not None)):
            lines.append([])
            room, separator = characters, ""
        lines[-1] += [separator, *word] if separator else word
        room, separator = room - len(separator) - length, " "
    return [_join_texts(line) for line in lines]


def _split_words(parts: Sequence[str | Tensor], font: Font, characters: int) -> Iterator[list[str | Tensor]]:
    """Yield texts and codes between two spaces of the texts; longer words than fit into a line are cut into pieces."""
    words: list[list[str | Tensor]] = [[]]
    for part in parts:
        if isinstance(part, Tensor):
            words[-1].append(part)
        else:
            start, *next_words = part.split(" ")
            words[-1].append(start)
            words += [[text] for text in next_words]
    for word in words:
        text = word[0] if len(word) == 1 else None
        if isinstance(text, str) and font.count_cells(text) > characters:
            for i in range(0, len(text), characters):
                yield [text[i : i + characters]]
        elif word != [""]:
            yield [part for part in word if not isinstance(part, str) or part]


def _join_texts(line: Sequence[str | Tensor]) -> list[str | Tensor]:
    """Join neighboring texts, so that the font caches whole texts and not words."""
    joined: list[str | Tensor] = []
    for part in line:
        if joined and isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined or [""]


def stack_parts(parts: Sequence[Tensor]) -> Tensor:
    """Stack parts ``(3, h, w)`` of a figure vertically, padded to the same width."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([_pad_to_width(part, width) for part in parts], dim=1)


def _pad_to_width(part: Tensor, width: int) -> Tensor:
    return F.pad(part, (0, max(width - part.shape[-1], 0)), value=PAPER[0])
