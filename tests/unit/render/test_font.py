"""Text as tensors, compared with Python's own formatting."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, strategies as st
from PIL import Image, ImageDraw, ImageFont

from lightning_gradcam.render.colors import make_color
from lightning_gradcam.render.font import Font, paint
from tests.helpers.models import examples

EXTRA = "éß猫Ω→"
FONT = Font.load([EXTRA])


def words(codes: torch.Tensor) -> str:
    return "".join(FONT.characters[code] for code in codes.tolist())


@examples(200)
@given(st.lists(st.text(st.sampled_from(FONT.characters + "☃\n"), max_size=12), min_size=1, max_size=4), st.data())
def test_encode_pads_cuts_and_replaces(texts, data):
    width = data.draw(st.none() | st.integers(1, 14))
    longest = max(map(len, texts))
    for text, codes in zip(texts, FONT.encode(texts, width), strict=True):
        expected = text.ljust(longest if width is None else width)
        if width is not None and len(text) > width:
            expected = text[: width - 1] + "…"
        assert words(codes) == "".join(c if c in FONT.characters else "?" for c in expected)


def test_encode_caches_and_encode_uncached_does_not():
    font = Font.load()
    assert font.encode(["drift", "±"]) is font.encode(["drift", "±"])
    assert font.encode(["drift"], 4) is not font.encode(["drift"], 5)
    kept = len(font._cache)
    assert [words(font.encode_uncached(f"epoch {look}")) for look in range(9)] == [f"epoch {look}" for look in range(9)]
    assert len(font._cache) == kept


@torch.inference_mode()
def test_cached_tensors_are_not_inference_tensors():
    assert not Font.load().encode(["drift"]).is_inference()
    assert not make_color((1.0, 2.0, 3.0), torch.device("cpu")).is_inference()


def python_fixed(value: float, whole: int, decimals: int) -> str:
    room = whole + (decimals + 1 if decimals else 0)
    if not math.isfinite(value):
        return "–".rjust(room)
    text = f"{abs(max(value, 0)):.{decimals}f}"  # no "-0"
    return text.rjust(room) if len(text) <= room else ("9" * whole + "." * bool(decimals) + "9" * decimals)


@examples(400)
@given(
    st.floats(-10, 1e5, width=32) | st.floats(0, 2, width=32) | st.floats(width=32),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_encode_number_equals_python(value, whole, decimals):
    if math.isfinite(value):
        assume(abs(value * 10**decimals % 1 - 0.5) > 1e-9)  # on the edge, Python rounds what was written in binary
    assert words(FONT.encode_number(torch.tensor(value), whole, decimals)) == python_fixed(value, whole, decimals)


def test_encode_number_rounds_many_numbers():
    many = FONT.encode_number(torch.tensor([[0.0, 9.96], [99.94, torch.nan]]), 2, 1)
    assert [[words(codes) for codes in row] for row in many] == [[" 0.0", "10.0"], ["99.9", "   –"]]
    assert words(FONT.encode_number(torch.tensor(0.996) * 100, 3, 0)) == "100"


@examples(300)
@given(st.floats(2**-120, 2**127, width=32) | st.integers(-36, 38).map(lambda power: 10.0**power))
def test_encode_scientific_equals_python(value):
    value = float(torch.tensor(value))
    mantissa = float(f"{value:.12e}".split("e")[0])
    assume(abs(mantissa * 10 % 1 - 0.5) > 1e-6)
    assert words(FONT.encode_scientific(torch.tensor(value))) == f"{value:.1e}"


def test_lines_are_joined_and_drawn_like_the_font_face():
    line = FONT.encode_line(["loss ", FONT.encode_number(torch.tensor(0.5), 1, 2), " ±"], max_characters=8)
    assert words(line) == "loss 0.5"
    coverage = FONT.draw(FONT.encode(["Ag✓", "猫é."]))
    assert coverage.shape == (2, FONT.height, 3 * FONT.width)
    import matplotlib

    face = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSansMono.ttf", 12)
    for row, text in enumerate(("Ag✓", "猫é.")):
        for i, character in enumerate(text):
            cell = Image.new("L", (FONT.width, FONT.height))
            ImageDraw.Draw(cell).text((0, 1), character, font=face, fill=255)
            expected = torch.tensor(list(cell.tobytes())).reshape(FONT.height, FONT.width) / 255
            assert expected.max() > 0.5
            torch.testing.assert_close(coverage[row, :, i * FONT.width : (i + 1) * FONT.width], expected)
    assert not torch.equal(Font.load().glyphs, Font.load(bold=True).glyphs)


def test_paint_mixes_ink_and_paper():
    coverage = torch.tensor([[0.0, 0.5, 1.0]])
    assert paint(coverage, (200, 100, 0), (0, 100, 200)).tolist() == [
        [[0, 100, 200]],
        [[100, 100, 100]],
        [[200, 100, 0]],
    ]
    per_row = paint(
        coverage.expand(2, 1, 3), torch.tensor([[9, 9, 9], [0, 0, 0]]), torch.tensor([[0, 0, 0], [9, 9, 9]])
    )
    assert per_row[:, 0, 0].tolist() == [[0, 5, 9], [9, 5, 0]]


@pytest.mark.parametrize("name", ["cat\r", "\r", "dog\r\n", "a\tb", "\x00", "\u202eabc", "\u2028"])
def test_control_characters_are_drawn_as_question_marks(name):
    font = Font.load([name])
    codes = font.encode([name])[0].tolist()
    assert [font.characters[code] for code in codes] == [c if c.isprintable() else "?" for c in name]
