"""Reports as one HTML page with embedded figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence

from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from lightning_gradcam.utils.sanitize import escape_html

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #212126; }}
h1 {{ font-size: 1.4rem; }} h1 span {{ color: {color}; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; margin: .6rem 0; }} td, th {{ padding: .2rem .9rem .2rem 0; text-align: left; }}
td {{ border-top: 1px solid #ddd; font-variant-numeric: tabular-nums; }}
img {{ image-rendering: pixelated; max-width: 100%; display: block; }} .note {{ color: #737380; }}
</style></head><body>
<h1><span>{mark}</span> · {subject}</h1>
<p>{reason}</p>
{body}
</body></html>
"""


def render_page(title: str, mark: str, subject: str, reason: str, body: Sequence[str], color: str = "#212126") -> str:
    """Render a self-contained page; all arguments are escaped, except for ``body``, which is HTML."""
    texts = {"title": title, "mark": mark, "subject": subject, "reason": reason, "color": color}
    return _PAGE.format(**{name: escape_html(text) for name, text in texts.items()}, body="\n".join(body))


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]], figures: Sequence[Tensor | None] = ()) -> str:
    """Render a table of text cells, which are escaped, with a figure at the end of a row where there is one.

    Args:
        head: Titles of the columns; empty for a table without a head.
        rows: The cells.
        figures: ``(3, h, w)`` uint8 per row.
    """
    lines = ["<table>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{escape_html(cell)}</th>" for cell in head) + "</tr>")
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{escape_html(cell)}</td>" for cell in row)
        figure = figures[i] if i < len(figures) else None
        lines.append(f"<tr>{cells}{_render_figure_cell(figure)}</tr>")
    return "\n".join([*lines, "</table>"])


def encode_png(figure: Tensor) -> bytes:
    """Encode a figure ``(3, h, w)`` uint8 as PNG."""
    buffer = io.BytesIO()
    to_pil_image(figure).save(buffer, "PNG")
    return buffer.getvalue()


def _render_figure_cell(figure: Tensor | None) -> str:
    if figure is None:
        return ""
    data = base64.b64encode(encode_png(figure)).decode()
    return f'<td><img alt="evidence" src="data:image/png;base64,{data}"></td>'
