"""Reports as words: for a terminal, for a pull request, for machines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lightning_gradcam.utils.sanitize import escape_markdown, escape_terminal


def align_columns(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Names and what they are, in lines for a terminal, the names in a column of at least so many characters.

    >>> align_columns([("images", "128"), ("layer a.b", "maps")], 8)
    ['  images     128', '  layer a.b  maps']
    """
    width = max([width, *(len(name) for name, _ in rows)])
    return [f"  {escape_terminal(name):<{width}}  {escape_terminal(words)}" for name, words in rows]


def format_number(value: float) -> str:
    """With three decimals, or more where it is nearly one."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 0.9995 or abs(value) == 1 else f"{value:.6f}"


def format_percent(value: float) -> str:
    """In percent."""
    return f"{value:.1%}" if math.isfinite(value) else "–"


def format_markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """In Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    return [
        "| " + " | ".join(line if set(line) == {"-"} else escape_markdown(line) for line in cells) + " |"
        for cells in lines
    ]
