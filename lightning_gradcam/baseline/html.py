"""Reports as one page that holds its pictures."""

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
<h1><span>{mark}</span> · {about}</h1>
<p>{reason}</p>
{body}
</body></html>
"""


def render_page(title: str, mark: str, about: str, reason: str, body: Sequence[str], color: str = "#212126") -> str:
    """A page of its own; all but ``body``, which is HTML, is escaped."""
    words = {"title": title, "mark": mark, "about": about, "reason": reason, "color": color}
    return _PAGE.format(**{name: escape_html(value) for name, value in words.items()}, body="\n".join(body))


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]], pictures: Sequence[Tensor | None] = ()) -> str:
    """Rows of words, which are escaped, and of pictures."""
    lines = ["<table>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{escape_html(cell)}</th>" for cell in head) + "</tr>")
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{escape_html(cell)}</td>" for cell in row)
        picture = pictures[i] if i < len(pictures) else None
        image = (
            "" if picture is None else f'<td><img alt="evidence" src="data:image/png;base64,{_base64(picture)}"></td>'
        )
        lines.append(f"<tr>{cells}{image}</tr>")
    return "\n".join([*lines, "</table>"])


def _base64(picture: Tensor) -> str:
    return base64.b64encode(encode_png(picture)).decode()


def encode_png(picture: Tensor) -> bytes:
    """A picture ``(3, h, w)`` uint8 as a file."""
    buffer = io.BytesIO()
    to_pil_image(picture).save(buffer, "PNG")
    return buffer.getvalue()
