"""Text as tensors of character codes: words and numbers are chosen and drawn where the numbers are, on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_gradcam.render.colors import Color, make_color, to_bytes

_FIRST = " 0123456789"  # so that the code of a digit is the digit plus one
_ALWAYS = _FIRST + "".join(chr(c) for c in range(33, 127) if not chr(c).isdigit()) + "–…·×±✓✗≥"


@dataclass(frozen=True)
class Font:
    """A monospaced font as one tensor.

    Args:
        characters: Which character each code means; an unknown one is drawn as "?".
        glyphs: ``(characters, height, width)`` coverage in [0, 1].
    """

    characters: str
    glyphs: Tensor

    @staticmethod
    def load(
        texts: Iterable[str] = (), *, device: torch.device | str = "cpu", size: int = 12, bold: bool = False
    ) -> Font:
        """Rasterise what printable ASCII and ``texts`` need, ``size`` pixels high."""
        file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSansMono{'-Bold' if bold else ''}.ttf")
        face = ImageFont.truetype(str(file), size)
        characters = "".join(dict.fromkeys(_ALWAYS + "".join(texts)))
        height, width = size + 4, round(face.getlength("0"))
        strip = Image.new("L", (width * len(characters), height))
        for i, character in enumerate(characters):
            cell = Image.new("L", (width, height))
            ImageDraw.Draw(cell).text((0, 1), character, font=face, fill=255)
            strip.paste(cell, (i * width, 0))
        pixels = torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.uint8).float() / 255
        glyphs = pixels.reshape(height, len(characters), width).permute(1, 0, 2).contiguous()
        return Font(characters, glyphs.to(device))

    @property
    def height(self) -> int:
        """Of a line, in pixels."""
        return self.glyphs.shape[1]

    @property
    def width(self) -> int:
        """Of a character, in pixels."""
        return self.glyphs.shape[2]

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {character: code for code, character in enumerate(self.characters)}

    @cached_property
    def _known(self) -> dict[tuple[tuple[str, ...], int], Tensor]:
        return {}

    def encode(self, texts: Sequence[str], width: int | None = None) -> Tensor:
        """``(len(texts), width)`` codes, not to be written to; what is too long ends in "…".

        They are kept, so that what all pictures say is on the device from the first one on.

        >>> font = Font.load()
        >>> "".join(font.characters[c] for c in font.encode(["sailing boat"], 8)[0])
        'sailing…'
        """
        width = max(map(len, texts)) if width is None else width
        asked = tuple(texts), width
        if asked not in self._known:
            self._known[asked] = self._encoded(*asked)
        return self._known[asked]

    def once(self, text: str) -> Tensor:
        """``(len(text),)`` codes of what only one picture says: they are not kept."""
        return self._encoded([text], len(text))[0]

    def _encoded(self, texts: Sequence[str], width: int) -> Tensor:
        cut = [t if len(t) <= width else t[: max(width - 1, 0)] + "…"[:width] for t in texts]
        codes = [[self._codes.get(c, self._codes["?"]) for c in text.ljust(width)] for text in cut]
        with torch.inference_mode(False):  # they outlive the look
            host = torch.tensor(codes, dtype=torch.long).reshape(len(texts), width)
            # So little is staged at once: nothing waits, and nothing can change under the copy.
            return host.to(self.glyphs.device, non_blocking=True)

    def fixed(self, values: Tensor, whole: int, decimals: int) -> Tensor:
        """Numbers from 0 on, rounded: ``(..., whole + 1 + decimals)`` codes, or ``(..., whole)`` without decimals.

        What is not finite becomes "–"; what does not fit is cut to the largest number that does.

        >>> font = Font.load()
        >>> "".join(font.characters[c] for c in font.fixed(torch.tensor(3.14159), 2, 2))
        ' 3.14'
        """
        steps = torch.round(values.double().nan_to_num(0, 0, 0) * 10**decimals)
        steps = steps.clamp(0, 10 ** (whole + decimals) - 1).long()  # in this order: int64 has an end
        powers = 10 ** torch.arange(whole + decimals - 1, -1, -1, device=values.device)
        digits = steps[..., None] // powers % 10 + 1
        if whole > 1:
            leading = steps[..., None] < powers[: whole - 1]
            digits[..., : whole - 1].masked_fill_(leading, 0)
        point = self.encode(["."])[0].expand(*digits.shape[:-1], 1)
        codes = torch.cat([digits[..., :whole], point, digits[..., whole:]], -1) if decimals else digits
        dash = self.encode(["–".rjust(codes.shape[-1])])[0]
        return torch.where(values.isfinite()[..., None], codes, dash)

    def scientific(self, value: Tensor) -> Tensor:
        """A positive number as ``1.2e-03``: ``(7,)`` codes.

        >>> font = Font.load()
        >>> "".join(font.characters[c] for c in font.scientific(torch.tensor(0.00123)))
        '1.2e-03'
        """
        exponent = value.double().clamp_min(1e-38).log10().floor()
        mantissa = value.double() / 10**exponent
        carry = mantissa >= 9.95
        mantissa, exponent = torch.where(carry, mantissa / 10, mantissa), exponent + carry
        sign = torch.where(exponent < 0, self.encode(["-"])[0], self.encode(["+"])[0])
        power = exponent.abs().long()
        digits = torch.stack([power // 10, power % 10]) + 1
        return torch.cat([self.fixed(mantissa, 1, 1), self.encode(["e"])[0], sign, digits])

    def line(self, parts: Sequence[str | Tensor], most: int | None = None) -> Tensor:
        """Words and codes behind one another, at most ``most`` codes."""
        return torch.cat([self.encode([part])[0] if isinstance(part, str) else part for part in parts])[:most]

    def draw(self, codes: Tensor) -> Tensor:
        """``(..., characters)`` codes to coverage ``(..., height, characters * width)``."""
        return self.glyphs[codes].movedim(-3, -2).flatten(-2)


def paint(coverage: Tensor, ink: Color | Tensor, paper: Color | Tensor) -> Tensor:
    """Coverage ``(..., h, w)`` to colours ``(..., 3, h, w)`` uint8; ``ink`` and ``paper`` are RGB or ``(..., 3)``."""
    front, back = (
        (color if isinstance(color, Tensor) else make_color(color, coverage.device)).float()[..., None, None]
        for color in (ink, paper)
    )
    return to_bytes(back + (front - back) * coverage[..., None, :, :])
