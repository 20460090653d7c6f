"""What is written under, over and beside the photos, chosen on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.render.canvas import Canvas
from lightning_gradcam.render.colors import BAR, FAINT, INK, PAPER, Color, ColorTable, lay_over, make_color
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.targets.logits import probabilities

GAP = 4
"""Pixels between the parts of a picture."""


def encode_label(font: Font, names: Tensor, labels: Tensor, characters: int, noun: str = "label") -> Tensor:
    """``label pine``: ``(N, characters)`` codes."""
    word = font.encode([f"{noun} "])[0].expand(len(labels), -1)
    line = torch.cat([word, names[labels.clamp(0, len(names) - 1)]], 1)
    return F.pad(line, (0, max(characters - line.shape[1], 0)))[:, :characters]


def encode_prediction(
    font: Font, names: Tensor, best: tuple[Tensor, Tensor], right: Tensor | None, characters: int
) -> Tensor:
    """``✓ pine   98%``: ``(N, characters)`` codes; without labels there is no mark.

    ``names`` are `fit_name_width` characters wide, ``best`` are `predictions`.
    """
    sure, predicted = best

    def all_rows(text: str) -> Tensor:
        return font.encode([text]).expand(len(predicted), -1)

    mark = all_rows(" ") if right is None else torch.where(right[:, None], all_rows("✓"), all_rows("✗"))
    percent = font.fixed(sure * 100, 3, 0)
    name = torch.where(predicted[:, None] < 0, 0, names[predicted.clamp(0, len(names) - 1)])
    return torch.cat([mark, all_rows(" "), name, all_rows(" "), percent, all_rows("%")], 1)[:, :characters]


def encode_class(
    font: Font, names: Tensor, logits: Tensor, classes: Tensor, characters: int, multilabel: bool = False
) -> Tensor:
    """``  oak     1%``, a class and its probability: ``(N, characters)`` codes, blank where the class is -1."""
    known = classes.clamp_min(0)
    sure = probabilities(logits, multilabel).gather(1, known[:, None])[:, 0]
    space, percent = (font.encode([text]).expand(len(logits), -1) for text in (" ", "%"))
    said = torch.cat([space, space, names[known], space, font.fixed(sure * 100, 3, 0), percent], 1)
    return torch.where(classes[:, None] < 0, 0, said)[:, :characters]


def encode_score(font: Font, scores: Tensor, characters: int) -> Tensor:
    """``score  -0.83``: ``(N, characters)`` codes; numbers of three digits before the point fit."""
    word, space = (font.encode([text]).expand(len(scores), -1) for text in ("score ", " "))
    sign, size = font.encode(["-", " "])[(~(scores < 0)).long()], scores.abs()
    small = torch.cat([space, sign, font.fixed(size, 1, 2)], 1)
    large = torch.cat([sign, font.fixed(size, 3, 1)], 1)
    return torch.cat([word, torch.where(size[:, None] < 9.995, small, large)], 1)[:, :characters]


def fit_name_width(characters: int) -> int:
    """How many characters of a line of a caption are for a class's name: mark, percentage and spaces take seven."""
    return max(characters - 7, 1)


def draw_caption(font: Font, lines: Sequence[Tensor], width: int, right: Tensor | None) -> Tensor:
    """Lines of codes ``(N, characters)`` to ``(N, 3, h, width)`` uint8; wrong ones are white on black."""
    coverage = torch.cat([font.draw(line) for line in lines], dim=1)
    coverage = F.pad(coverage, (1, width - coverage.shape[-1] - 1, 1, 1))
    ink, paper = make_color(INK, coverage.device), make_color(PAPER, coverage.device)
    if right is not None:
        ink, paper = (torch.where(right[:, None], a, b) for a, b in ((ink, paper), (paper, ink)))
    return paint(coverage, ink, paper)


def draw_header(title: str, facts: Sequence[str | Tensor], font: Font, bold: Font, width: int) -> Tensor:
    """The head lines, ``(3, h, width)`` uint8."""
    title_line = draw_line(bold, [title], width, above=GAP)
    return torch.cat([title_line, draw_line(font, facts, width)], 1) if facts else title_line


def draw_footer(
    font: Font, ramp: ColorTable, scale: Tensor | None, marks: bool, width: int, canvas: Canvas, most: str = ""
) -> Tensor:
    """The scale bar with what its ends mean, ``(3, h, width)`` uint8; ``most`` says what the last colour means."""
    left: list[str | Tensor] = ["no evidence " if scale is None else "evidence 0 "]
    right: list[str | Tensor] = [f" {most or f'the most in this {canvas.noun}'}"]
    if scale is not None:
        right = [" ≥ ", font.scientific(scale), f", one scale for all {canvas.noun}s"]
    if marks:
        right.append("   ✓ right  ✗ wrong")
    right.append(canvas.legend)
    rising = torch.linspace(0, 1, 160, device=ramp.table.device).expand(1, font.height - 6, -1)
    bar = F.pad(lay_over(torch.full_like(rising, BAR)[:, None], rising, ramp)[0], (0, 0, 3, 3), value=PAPER[0])
    words = [paint(font.draw(font.line(parts)), FAINT, PAPER) for parts in (left, right)]
    return _widen(F.pad(torch.cat([words[0], bar, words[1]], dim=2), (GAP, 0, 0, GAP), value=PAPER[0]), width)


def stack_parts(parts: Sequence[Tensor]) -> Tensor:
    """Parts ``(3, h, w)`` below one another, as one picture."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([_widen(part, width) for part in parts], dim=1)


def draw_line(font: Font, parts: Sequence[str | Tensor], width: int, above: int = 0, ink: Color = INK) -> Tensor:
    """One line of words and codes, ``(3, h, width)`` uint8, cut where it is too long."""
    coverage = font.draw(font.line(parts, (width - 2 * GAP) // font.width))
    return paint(F.pad(coverage, (GAP, width - GAP - coverage.shape[-1], above, 0)), ink, PAPER)


def _widen(part: Tensor, width: int) -> Tensor:
    return F.pad(part, (0, max(width - part.shape[-1], 0)), value=PAPER[0])
