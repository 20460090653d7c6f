"""Text as tensors of character codes.

Words and numbers are composed and drawn on the device that holds the numbers, so that drawing does not wait for it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import ImageFont
from torch import Tensor

from lightning_gradcam.render.arrangement import FONT_SIZE
from lightning_gradcam.render.colors import Color, make_color, to_bytes
from lightning_gradcam.render.glyphs import (
    Grid,
    draw_character,
    draw_run,
    find_font,
    get_bundled_font,
    is_right_to_left,
    is_wide,
    list_characters,
    split_runs,
)

_FIRST_CHARACTERS = " 0123456789"  # so that the code of a digit is the digit plus one
_STANDARD_CHARACTERS = _FIRST_CHARACTERS + "".join(chr(c) for c in range(33, 127) if not chr(c).isdigit()) + "–…·×±✓✗≥"
_CELL = "\0"  # a code that is part of a wider glyph


@dataclass(frozen=True)
class Font:
    """A monospaced font as one tensor.

    Args:
        characters: The character of each code; characters without a code are drawn as "?".
        glyphs: ``(characters, height, width)`` coverage in [0, 1].
        wide_codes: The codes of characters that take two cells, and of runs of text that are laid out as a whole.
    """

    characters: str
    glyphs: Tensor
    wide_codes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @staticmethod
    def load(
        texts: Iterable[str] = (), *, device: torch.device | str = "cpu", size: int = FONT_SIZE, bold: bool = False
    ) -> Font:
        """Rasterize printable ASCII and the characters of ``texts``, ``size`` pixels high.

        Characters that the bundled fonts lack are taken from installed fonts; those that no font has have no code.
        """
        file = get_bundled_font(f"DejaVuSansMono{'-Bold' if bold else ''}")
        face = ImageFont.truetype(file, size)
        grid = Grid(round(face.getlength("0")), size + 4, 1 + face.getmetrics()[0])
        further, runs = list_characters(map(_compose, texts))
        characters = list(dict.fromkeys([*_STANDARD_CHARACTERS, *(c for c in further if not is_wide(c))]))
        glyphs = [draw_character(character, file, size, grid) for character in characters]
        wide_codes: dict[str, Sequence[int]] = {}
        for text in [*filter(is_wide, further), *runs]:
            fallback = find_font(text)
            if fallback is None:
                continue
            if is_wide(text[0]):
                cells = draw_character(text, fallback, size, grid, 2)
            else:
                cells = draw_run(text, fallback, size, grid)
            wide_codes[text] = range(len(characters), len(characters) + len(cells))
            characters += [_CELL] * len(cells)
            glyphs.append(cells)
        return Font("".join(characters), torch.cat(glyphs).to(device), wide_codes)

    @property
    def height(self) -> int:
        """Height of a line in pixels."""
        return self.glyphs.shape[1]

    @property
    def width(self) -> int:
        """Width of a character in pixels."""
        return self.glyphs.shape[2]

    @cached_property
    def _code_by_character(self) -> dict[str, int]:
        return {character: code for code, character in enumerate(self.characters) if character != _CELL}

    @cached_property
    def _cache(self) -> dict[tuple[tuple[str, ...], int], Tensor]:
        return {}

    def encode(self, texts: Sequence[str], width: int | None = None) -> Tensor:
        """Return the ``(len(texts), width)`` codes of texts. Do not modify them in place: they are cached.

        The cache keeps text that all figures share on the device. Texts longer than ``width`` are truncated with "…".

        >>> font = Font.load()
        >>> "".join(font.characters[c] for c in font.encode(["sailing boat"], 8)[0])
        'sailing…'
        """
        width = max(self.count_cells(text) for text in texts) if width is None else width
        key = tuple(texts), width
        if key not in self._cache:
            self._cache[key] = self._look_up_codes(*key)
        return self._cache[key]

    def encode_uncached(self, text: str) -> Tensor:
        """Return the codes ``(n,)`` of text that occurs in a single figure, bypassing the cache."""
        return self._look_up_codes([text], self.count_cells(text))[0]

    def count_cells(self, text: str) -> int:
        """Return the number of codes of a text."""
        return len(text) if text.isascii() else len(self._list_codes(text))

    def can_draw(self, text: str) -> bool:
        """Return whether the font has glyphs for all of a text."""
        return all(
            part in self.wide_codes
            if is_run
            else all(c in self._code_by_character or c in self.wide_codes for c in part)
            for part, is_run in split_runs(_compose(text))
        )

    def _look_up_codes(self, texts: Sequence[str], width: int) -> Tensor:
        blank = self._code_by_character[" "]
        codes = [(row + [blank] * (width - len(row)))[:width] for row in (self._fit(text, width) for text in texts)]
        with torch.inference_mode(False):  # cached codes outlive the snapshot
            cpu_codes = torch.tensor(codes, dtype=torch.long).reshape(len(texts), width)
            # CUDA stages a copy this small at once, so the CPU tensor may be freed without waiting.
            return cpu_codes.to(self.glyphs.device, non_blocking=True)

    def _fit(self, text: str, width: int) -> list[int]:
        """Return the codes of a text, truncated at its end to ``width`` cells, the last of which is "…" then."""
        codes = self._list_codes(text)
        if len(codes) <= width:
            return codes
        ellipsis = [self._code_by_character["…"]][:width]
        start, is_run = next(split_runs(_compose(text)))
        head = 0 if is_run else self.count_cells(start)
        if is_right_to_left(text) and head < width - 1:
            return [*codes[:head], *ellipsis, *codes[len(codes) - (width - 1 - head) :]]
        return [*codes[: max(width - 1, 0)], *ellipsis]

    def _list_codes(self, text: str) -> list[int]:
        unknown, codes = self._code_by_character["?"], list[int]()
        for part, is_run in split_runs(_compose(text)):
            for piece in [part] if is_run else part:
                codes += self.wide_codes.get(piece) or [self._code_by_character.get(piece, unknown)] * len(piece)
        return codes

    def encode_number(self, values: Tensor, integer_digits: int, decimals: int) -> Tensor:
        """Encode non-negative numbers with a fixed number of digits.

        Args:
            values: ``(...)``; numbers that are not finite become "–", numbers too large become the largest that fits.
            integer_digits: Digits before the point, padded with spaces.
            decimals: Digits after it.

        Returns:
            ``(..., integer_digits + 1 + decimals)`` codes, or ``(..., integer_digits)`` without decimals.

        >>> font = Font.load()
        >>> "".join(font.characters[c] for c in font.encode_number(torch.tensor(3.14159), 2, 2))
        ' 3.14'
        """
        scaled = torch.round(values.double().nan_to_num(0, 0, 0) * 10**decimals)
        scaled = scaled.clamp(0, 10 ** (integer_digits + decimals) - 1).long()  # clamp first: int64 could overflow
        powers = 10 ** torch.arange(integer_digits + decimals - 1, -1, -1, device=values.device)
        digits = scaled[..., None] // powers % 10 + 1
        if integer_digits > 1:
            is_leading_zero = scaled[..., None] < powers[: integer_digits - 1]
            digits[..., : integer_digits - 1].masked_fill_(is_leading_zero, 0)
        point = self.encode(["."])[0].expand(*digits.shape[:-1], 1)
        codes = (
            torch.cat([digits[..., :integer_digits], point, digits[..., integer_digits:]], -1) if decimals else digits
        )
        dash = self.encode(["–".rjust(codes.shape[-1])])[0]
        return torch.where(values.isfinite()[..., None], codes, dash)

    def encode_scientific(self, value: Tensor) -> Tensor:
        """Encode a positive number in scientific notation, such as ``1.2e-03``: ``(7,)`` codes.

        >>> font = Font.load()
        >>> "".join(font.characters[c] for c in font.encode_scientific(torch.tensor(0.00123)))
        '1.2e-03'
        """
        exponent = value.double().clamp_min(1e-38).log10().floor()
        mantissa = value.double() / 10**exponent
        carry = mantissa >= 9.95  # it would round to 10.0
        mantissa, exponent = torch.where(carry, mantissa / 10, mantissa), exponent + carry
        sign = torch.where(exponent < 0, self.encode(["-"])[0], self.encode(["+"])[0])
        power = exponent.abs().long()
        digits = torch.stack([power // 10, power % 10]) + 1
        return torch.cat([self.encode_number(mantissa, 1, 1), self.encode(["e"])[0], sign, digits])

    def encode_line(self, parts: Sequence[str | Tensor], max_characters: int | None = None) -> Tensor:
        """Join texts and codes to one line of at most ``max_characters`` codes."""
        codes = [self.encode([part])[0] if isinstance(part, str) else part for part in parts]
        return torch.cat(codes)[:max_characters]

    def draw(self, codes: Tensor) -> Tensor:
        """Draw ``(..., characters)`` codes as coverage ``(..., height, characters * width)``."""
        return self.glyphs[codes].movedim(-3, -2).flatten(-2)


def _compose(text: str) -> str:
    """Return the text with letters and their accents as single characters where Unicode has them."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def paint(coverage: Tensor, ink: Color | Tensor, paper: Color | Tensor) -> Tensor:
    """Color coverage ``(..., h, w)`` as ``(..., 3, h, w)`` uint8.

    Args:
        coverage: In [0, 1].
        ink: The color where coverage is 1: RGB from 0 to 255, or ``(..., 3)``.
        paper: The color where it is 0.
    """
    foreground, background = (
        (color if isinstance(color, Tensor) else make_color(color, coverage.device)).float()[..., None, None]
        for color in (ink, paper)
    )
    return to_bytes(background + (foreground - background) * coverage[..., None, :, :])
