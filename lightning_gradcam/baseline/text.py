"""Text for reports: columns for a terminal, Markdown tables, numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lightning_gradcam.utils.sanitize import escape_markdown, escape_terminal


def align_columns(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return lines with names in a column of at least ``width`` characters, and their values.

    >>> align_columns([("images", "128"), ("layer a.b", "maps")], 8)
    ['  images     128', '  layer a.b  maps']
    """
    width = max([width, *(len(name) for name, _ in rows)])
    return [f"  {escape_terminal(name):<{width}}  {escape_terminal(value)}" for name, value in rows]


def display_name(key: str) -> str:
    """Return the name that texts show for a key of a report file.

    >>> display_name("normalisation"), display_name("dtype")
    ('normalization', 'dtype')
    """
    return "normalization" if key == "normalisation" else key  # the key in files keeps its earlier spelling


def format_number(value: float) -> str:
    """Format a number with three decimals, or with six if it would round to one."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 0.9995 or abs(value) == 1 else f"{value:.6f}"


def format_numbers(values: Iterable[tuple[str, float]]) -> str:
    """Format numbers with their names.

    >>> format_numbers([("q05", 0.5), ("q10", 0.75)])
    'q05 0.500, q10 0.750'
    """
    return ", ".join(f"{name} {format_number(value)}" for name, value in values)


def format_percent(value: float) -> str:
    """Format a fraction as a percentage."""
    return f"{value:.1%}" if math.isfinite(value) else "–"


def format_markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; its cells are escaped."""
    lines = [list(head), ["---"] * len(head), *rows]
    return [
        "| " + " | ".join(cell if set(cell) == {"-"} else escape_markdown(cell) for cell in cells) + " |"
        for cells in lines
    ]
