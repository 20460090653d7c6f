"""Glyphs of characters and of runs of text, from bundled and installed fonts."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, features
from torch import Tensor

_RIGHT_TO_LEFT = {"R", "AL"}
_COMBINING = {"Mn", "Mc", "Me"}


class Grid(NamedTuple):
    """The cells that glyphs are drawn in: their width and height, and the row of pixels on which letters stand."""

    width: int
    height: int
    baseline: int


def get_bundled_font(name: str) -> str:
    """Return the file of a font that matplotlib brings along."""
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"))


@cache
def get_coverage(file: str) -> frozenset[int]:
    """Return the code points that a font has glyphs for; none if the file cannot be read."""
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def is_wide(character: str) -> bool:
    """Return whether a character takes two cells, as Chinese, Japanese and Korean ones do."""
    return unicodedata.east_asian_width(character) in "WF"


def is_right_to_left(text: str) -> bool:
    """Return whether a text holds Hebrew, Arabic or another script that is read from right to left."""
    return any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text)


def needs_layout(character: str) -> bool:
    """Return whether a character cannot be drawn in a cell of its own.

    These are the scripts that are read from right to left, marks that are drawn over other characters, and all that
    the monospaced font lacks.
    """
    if not character.isprintable():
        return False
    if unicodedata.category(character) in _COMBINING or is_right_to_left(character):
        return True
    return not is_wide(character) and ord(character) not in get_coverage(get_bundled_font("DejaVuSansMono"))


def split_runs(text: str) -> Iterator[tuple[str, bool]]:
    """Split text into runs that are laid out as a whole (True), with the spaces between them, and other text (False).

    >>> list(split_runs("7 שלום עולם"))
    [('7 ', False), ('שלום עולם', True)]
    """
    if text.isascii():
        yield text, False
        return
    marked = "".join("x" if needs_layout(character) else " " if character == " " else "." for character in text)
    end = 0
    # A mark is drawn over the character before it.
    for match in re.finditer(r"\.?x(?:[x ]*x)?", marked):
        if match.start() > end:
            yield text[end : match.start()], False
        yield text[match.start() : match.end()], True
        end = match.end()
    if end < len(text):
        yield text[end:], False


@cache
def _list_installed_fonts() -> tuple[str, ...]:
    """List the files of installed fonts, upright and regular ones first. (The first call of an account takes long.)"""
    from matplotlib.font_manager import fontManager

    return tuple(f.fname for f in sorted(fontManager.ttflist, key=lambda f: (f.style != "normal", f.weight != 400)))


def find_font(text: str) -> str | None:
    """Return the file of a font with glyphs for all characters of a text, bundled ones first; None if there is none."""
    needed = {ord(character) for character in text if not character.isspace()}
    bundled = [get_bundled_font(name) for name in ("DejaVuSans", "DejaVuSansMono")]
    for file in bundled:
        if needed <= get_coverage(file):
            return file
    return next((file for file in _list_installed_fonts() if needed <= get_coverage(file)), None)


def draw_character(character: str, file: str, size: int, grid: Grid, cells: int = 1) -> Tensor:
    """Draw a character into ``cells`` cells, centered if there are several: ``(cells, height, width)`` in [0, 1]."""
    face = _load_face(file, size, ImageFont.Layout.BASIC)
    left = (cells * grid.width - face.getlength(character)) / 2 if cells > 1 else 0
    return _rasterize(character, face, left, cells, grid)


def draw_run(text: str, file: str, size: int, grid: Grid) -> Tensor:
    """Lay out and draw a run of text: ``(cells, height, width)`` in [0, 1], as many cells as it takes."""
    has_raqm = features.check("raqm")
    face = _load_face(file, size, ImageFont.Layout.RAQM if has_raqm else ImageFont.Layout.BASIC)
    visual = text if has_raqm else reverse_runs(text)
    return _rasterize(visual, face, 0, max(1, math.ceil(face.getlength(visual) / grid.width)), grid)


@lru_cache(maxsize=16)
def _load_face(file: str, size: int, engine: ImageFont.Layout) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size, layout_engine=engine)


def reverse_runs(text: str) -> str:
    """Reverse what is read from right to left, for layout engines that place characters in order of the text.

    >>> reverse_runs("abc") == "abc", reverse_runs("אב 12") == "12 בא"
    (True, True)
    """
    if not is_right_to_left(text):
        return text
    words = re.split(r"(\s+)", text)
    return "".join(word[::-1] if is_right_to_left(word) else word for word in reversed(words))


def list_characters(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the printable characters with cells of their own in texts, and the runs that are laid out, each once."""
    characters, runs = dict[str, None](), dict[str, None]()
    for text in texts:
        for part, is_run in split_runs(text):
            if is_run:
                runs[part] = None
            else:
                characters.update(dict.fromkeys(filter(str.isprintable, part)))
    return list(characters), list(runs)


def _rasterize(text: str, face: ImageFont.FreeTypeFont, left: float, cells: int, grid: Grid) -> Tensor:
    image = Image.new("L", (grid.width * cells, grid.height))
    ImageDraw.Draw(image).text((left, grid.baseline), text, font=face, fill=255, anchor="ls")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float() / 255
    return pixels.reshape(grid.height, cells, grid.width).permute(1, 0, 2)
