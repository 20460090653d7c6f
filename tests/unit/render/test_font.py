"""Text as tensors, compared with Python's own formatting."""

from __future__ import annotations

import math

import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import assume, given, strategies as st
from PIL import Image, ImageDraw, ImageFont

from lightning_gradcam.render import glyphs as glyphs_module
from lightning_gradcam.render.arrangement import FONT_SIZE
from lightning_gradcam.render.class_names import fit_names
from lightning_gradcam.render.colors import make_color
from lightning_gradcam.render.font import Font, paint
from tests.helpers.models import examples

EXTRA = "éßΩ→"
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
    coverage = FONT.draw(FONT.encode(["Ag✓", "→é."]))
    assert coverage.shape == (2, FONT.height, 3 * FONT.width)
    import matplotlib

    face = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSansMono.ttf", FONT_SIZE)
    for row, text in enumerate(("Ag✓", "→é.")):
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


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A font with one Chinese and one Hebrew character, boxes of known size, as the only installed one."""
    builder = FontBuilder(1000, isTTF=True)
    boxes = {"cat": (100, 0, 900, 800), "alef": (0, 0, 300, 700), "bet": (0, 0, 600, 350)}
    builder.setupGlyphOrder([".notdef", *boxes])
    builder.setupCharacterMap({ord("猫"): "cat", 0x16A0: "alef", 0x16A2: "bet"})
    glyphs = {}
    for name, (left, bottom, right, top) in {".notdef": (0, 0, 1, 1), **boxes}.items():
        pen = TTGlyphPen(None)
        pen.moveTo((left, bottom))
        for corner in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics({".notdef": (1, 0), "cat": (1000, 100), "alef": (400, 0), "bet": (700, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "test.ttf")
    monkeypatch.setattr(glyphs_module, "_list_installed_fonts", lambda: (str(tmp_path / "test.ttf"),))


@pytest.mark.usefixtures("installed")
def test_characters_of_installed_fonts_are_drawn():
    font = Font.load(["猫 1"])
    [codes] = font.encode(["猫 1"])
    assert len(codes) == 4  # two cells for the Chinese character
    drawn = font.draw(codes)
    # The box is 800 of 1000 units wide and high, above the baseline, at 20 pixels per 1000 units, centered in 24.
    ink = (drawn[:, :24] > 0.5).nonzero()
    assert ink.min(0).values.tolist() == [1 + 19 - 16, 4]
    assert ink.max(0).values.tolist() == [1 + 19 - 1, 4 + 16 - 1]
    assert font.can_draw("猫 1")
    assert not font.can_draw("犬")
    assert fit_names(["猫", "犬", "犬a"], font, 8) == ["猫", "1", "2 a"]


@pytest.mark.usefixtures("installed")
def test_runs_of_installed_fonts_are_laid_out_as_a_whole():
    font = Font.load(["a \u16a0\u16a2"])  # runes, which the bundled fonts lack
    [codes] = font.encode(["a \u16a0\u16a2"])
    drawn = font.draw(codes)[:, 2 * font.width :]
    columns = (drawn > 0.5).sum(0)
    # Advances of 400 and 700 units are 8 and 14 pixels; the boxes are 6 by 14 and 12 by 7 pixels.
    assert columns[:22].tolist() == [14] * 6 + [0] * 2 + [7] * 12 + [0] * 2


@pytest.mark.parametrize("has_raqm", [True, False])
def test_right_to_left_names_are_read_from_the_right(has_raqm, monkeypatch):
    if not has_raqm:
        monkeypatch.setattr(glyphs_module.features, "check", lambda name: False)
    name = "שלום"
    font = Font.load([name])
    [codes] = font.encode([name])
    drawn = font.draw(codes)
    file = glyphs_module.get_bundled_font("DejaVuSans")
    face = ImageFont.truetype(file, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)

    def measure_distance(text: str) -> float:
        image = Image.new("L", (drawn.shape[1], drawn.shape[0]))
        ImageDraw.Draw(image).text((0, 1 + 19), text, font=face, fill=255, anchor="ls")
        placed = torch.tensor(list(image.tobytes())).reshape(drawn.shape) / 255
        return float(min((drawn.roll(x, 1) - placed).abs().mean() for x in (-1, 0, 1)))

    assert measure_distance(name[::-1]) < 0.6 * measure_distance(name)  # the first letter at the right
    assert drawn.mean() > 0.05
    [short] = font.encode([name], 3)
    assert words_of(font, short[:1]) == "…"  # the end, at the left, is left out
    assert short[1:].tolist() == codes[-2:].tolist()
    [numbered] = font.encode([f"7 {name}"], 5)
    assert words_of(font, numbered[:3]) == "7 …"


def words_of(font: Font, codes: torch.Tensor) -> str:
    return "".join(font.characters[code] for code in codes.tolist())


@examples(40)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.integers(1, 9))
def test_any_names_are_drawn_and_told_apart(names, width):
    font = Font.load(names)
    fitted = fit_names(names, font, 20)
    assert font.encode(fitted, width).shape == (len(names), width)
    assert all(font.can_draw(name) for name in fitted)
    codes = {tuple(row) for row in font.encode(fitted, 20).tolist()}
    assert len(codes) == len(names)


def test_truncated_names_that_look_alike_have_their_index():
    names = [*(f"{i:05d}_Animalia_Chordata_{i}" for i in range(12)), "pine"]
    assert fit_names(names, FONT, 5) == [*(f"{i} {name}" for i, name in enumerate(names[:12])), "pine"]
