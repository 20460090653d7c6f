"""Sheet of one snapshot, read back from its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from lightning_gradcam.explainer.map_status import MapStatus, find_status
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import GAP, WIDTH, Arrangement, arrange
from lightning_gradcam.render.colors import INK, PAPER, ColorTable, blend_heatmaps, to_gray
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.oklab import to_oklab
from lightning_gradcam.render.photos import restore_photos, stretch_each
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.render.tiles import fit_tiles
from tests.helpers.models import examples, find, read, read_footer
from tests.helpers.overlay_replica import blend

NAMES = ["pine", "oak", "sailing boat on a lake"]


def make_sheet(photos: Tensor, labels: Tensor | None = None, names: list[str] = NAMES, **kwargs) -> Sheet:
    return Sheet.from_probe(Probe(photos, labels=labels), photos, names, **kwargs)


def ramp_evidence(count: int) -> Tensor:
    return torch.linspace(0, 1, 16).reshape(1, 4, 4).repeat(count, 1, 1)


def bytes_of(photos: Tensor) -> Tensor:
    return (photos * 255).round().to(torch.uint8)


@pytest.mark.parametrize(("size", "count", "channels"), [((28, 28), 16, 1), ((32, 32), 3, 3), ((64, 48), 2, 3)])
def test_sheet_restores_true_colors(size, count, channels):
    pixels = torch.randint(0, 256, (count, channels, *size)) / 255
    norm = Normalization((0.3, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels])
    photos, note = restore_photos(norm.normalize(pixels), norm)
    assert note.startswith("colors restored with mean (0.3")
    sheet = make_sheet(photos)
    figure = sheet.draw(ramp_evidence(count), torch.zeros(count), torch.zeros(count, 0), Heading("t"))
    factor = sheet.tile_size[1] // size[1]
    assert factor >= 2  # tiny images are enlarged, and their pixels stay square
    exact = bytes_of(pixels).expand(-1, 3, -1, -1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    places = [find(figure, photo) for photo in exact]
    assert [len(place) for place in places] == [1] * count
    assert sorted(place[0] for place in places) == [place[0] for place in places]  # row by row, in order


def test_restore_photos_of_any_range_and_channels():
    pixels = torch.rand(2, 3, 5, 5)
    as_they_are, note = restore_photos(pixels)
    assert torch.equal(as_they_are, pixels)
    assert "shown as they are" in note
    from_bytes, note = restore_photos((pixels * 255).byte())
    assert torch.equal(from_bytes, (pixels * 255).byte() / 255)
    assert "0..255" in note
    stretched, note = restore_photos(pixels * 4 - 2)
    for photo, image in zip(stretched, pixels, strict=True):
        low, high = image.flatten().sort().values[[round(0.01 * 74), round(0.99 * 74)]]
        torch.testing.assert_close(photo, ((image - low) / (high - low)).clamp(0, 1))
    assert "not true (pass `pixels=`" in note
    wrong, note = restore_photos(pixels, Normalization((0.5,) * 3, (9.0,) * 3))
    assert torch.equal(wrong, pixels)
    assert "is not used" in note
    wrong, note = restore_photos(pixels, Normalization((0.5,) * 4, (0.2,) * 4))
    assert torch.equal(wrong, pixels)
    assert "4 channels, the images have 3" in note
    many = torch.rand(2, 7, 5, 5)
    mean, note = restore_photos(many)
    torch.testing.assert_close(mean, stretch_each(many.mean(1, keepdim=True)).expand(-1, 3, -1, -1))
    assert "the 7 channels are shown as their mean" in note
    assert "bands=(2, 1, 0)" in note
    assert "stretched from its 1st to its 99th percentile" in note
    broken = pixels.clone()
    broken[0, 0, 0, 0], broken[1, 0, 0, 0] = torch.nan, torch.inf
    shown, _ = restore_photos(broken)
    assert torch.equal(shown, broken.nan_to_num(0, 0, 0))
    flat, _ = restore_photos(torch.full((1, 1, 4, 4), -3.0))
    assert flat.isfinite().all()


@examples(60)
@given(st.sampled_from(["inferno", "viridis", "gray", "Reds"]), st.integers(0, 255), st.floats(0, 1))
def test_blend_heatmaps_equals_a_replica(colormap, step, under):
    found = blend_heatmaps(
        torch.full((1, 1, 1, 1), under), torch.full((1, 1, 1), step / 255), ColorTable.from_colormap(colormap)
    )
    expected = blend(int(under * 255 + 0.5) / 255, step, colormap)
    assert np.abs(found[0, :, 0, 0].numpy() - expected).max() <= 1  # rounding


def test_more_evidence_moves_to_the_end_of_the_colormap():
    photos = torch.rand(1, 3, 64, 64)
    sheet = make_sheet(photos, arrangement=Arrangement(1, (64, 64)))
    evidence = torch.linspace(-1, 1, 64).expand(1, 64, 64)  # rises to the right; nothing in the left half
    tile = sheet.draw_overlays(evidence, find_status(evidence))[0].float()
    left = tile[:, :, :32]
    assert torch.equal(left[0], left[1])
    assert torch.equal(left[1], left[2])
    luma = (photos[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)[:, :32]
    expected = torch.tensor([[blend(float(g), 0, "inferno")[0] for g in row] for row in luma[:8]])
    assert (left[0, :8] - expected).abs().max() <= 1.01  # half of one of 256 grays, and half a byte
    steps = torch.linspace(0, 1, 256).expand(1, 1, -1)
    for colormap in ("inferno", "viridis"):
        ramp = ColorTable.from_colormap(colormap)
        dark, bright = (to_oklab(blend_heatmaps(torch.full((1, 1, 1, 256), g), steps, ramp)[0, :, 0].T / 255)
                        for g in (0.0, 1.0))  # fmt: skip
        to_the_end = (dark - dark[-1]).norm(dim=1)
        assert (to_the_end - to_the_end.cummin(0).values).max() <= 0.01  # rounding
        shows_through = (bright - dark)[:, 0]
        assert (shows_through / shows_through[0] - 1).abs().max() < 0.1  # the object is as visible as without evidence
        assert len({tuple(color) for color in dark.tolist()}) > 150  # and evidence can be told apart


@pytest.mark.parametrize("size", [(28, 28), (224, 224), (32, 512), (512, 32)])
def test_degenerate_tiles_show_their_status(size):
    photos = torch.rand(len(MapStatus), 3, *size)
    sheet = make_sheet(photos)
    codes = torch.arange(len(MapStatus), dtype=torch.uint8)
    tiles = sheet.draw_overlays(ramp_evidence(len(MapStatus)), codes)
    middle = (tiles.shape[2] - sheet.font.height) // 2
    for tile, word in zip(tiles[1:], [s.text for s in MapStatus][1:], strict=True):
        band = tile[:, middle : middle + sheet.font.height, : sheet.captions.characters * sheet.font.width]
        expected = word if len(word) <= sheet.captions.characters else word[: sheet.captions.characters - 1] + "…"
        assert read(sheet.font, band, PAPER, INK).strip() == expected
        rest = torch.cat([tile[:, :middle], tile[:, middle + sheet.font.height :]], 1)
        assert torch.equal(rest[0], rest[2])  # around it the gray photo, without evidence
    sound = tiles[0].float()
    assert (sound[0] - sound[2]).abs().max() > 20
    assert not torch.equal(tiles[1], tiles[2])


def cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


@pytest.mark.parametrize("width", [136, 182])
def test_captions_mark_right_and_wrong_predictions(width):
    photos = torch.rand(3, 3, 28, 28)
    arrangement = Arrangement(3, (112, 112), width=width)
    sheet = make_sheet(photos, torch.tensor([0, 1, 2]), arrangement=arrangement)
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 0.5], [-1, -1, 2]])
    captions, height = sheet.captions.draw(logits), sheet.font.height
    characters = sheet.captions.characters
    assert sheet.captions.is_wide == (width == 182)
    room = characters - (len("✓  100%") if sheet.captions.is_wide else len("✓ "))
    for i, (mark, label, predicted) in enumerate([("✓", 0, 0), ("✗", 1, 2), ("✓", 2, 2)]):
        ink, paper = (INK, PAPER) if mark == "✓" else (PAPER, INK)
        count = 2 if sheet.captions.is_wide else 3
        above, *below = (
            read(sheet.font, captions[i][:, top : top + height, 1:-1], ink, paper)
            for top in range(1, 1 + count * height, height)
        )
        word = "label " if sheet.captions.is_wide else ""
        assert above.rstrip() == f"{word}{cut(NAMES[label], room)}".rstrip()
        sure = f"{100 * float(logits[i].softmax(0)[predicted]):3.0f}%"
        name = f"{mark} {cut(NAMES[predicted], room)}"
        expected = [f"{name} {sure}"] if sheet.captions.is_wide else [name, sure.rjust(characters)]
        assert [line.rstrip() for line in below] == [line.rstrip() for line in expected]
    unlabelled = make_sheet(photos, arrangement=arrangement).captions.draw(logits)
    broken = sheet.captions.draw(torch.tensor([[torch.nan, 0, 0]] * 3))
    top = 1 + height
    line = "".join(
        read(sheet.font, broken[0][:, y : y + height, 1:-1], PAPER, INK)
        for y in range(top, broken.shape[2] - height, height)
    )
    assert line.split() == ["✗", "–%"]  # numbers that are none predict nothing, also not the first class
    assert read(sheet.font, unlabelled[1][:, 1 : 1 + height, 1:-1], INK, PAPER).startswith("  sailing")
    assert make_sheet(photos).captions.draw(torch.zeros(3, 0)).shape == (3, 3, 0, sheet_width(photos))


def sheet_width(photos: Tensor) -> int:
    return make_sheet(photos).image_tiles.shape[-1]


def test_short_names_and_percentages_share_a_line():
    sheet = Sheet.from_probe(
        Probe(torch.rand(16, 1, 8, 8), labels=torch.zeros(16).long()), torch.rand(16, 3, 8, 8), "012"
    )
    drawn = sheet.captions.draw(torch.tensor([[0.0, 9, 0]]).expand(16, 3))
    height = sheet.font.height
    lines = [read(sheet.font, drawn[0][:, y : y + height, 1:-1], PAPER, INK).rstrip() for y in (1, 1 + height)]
    assert lines == ["label 0", "✗ 1    100%"]
    assert drawn.shape[2] == 2 + 2 * height


def test_header_and_footer_describe_the_sheet():
    sheet = make_sheet(torch.rand(3, 3, 28, 28), torch.tensor([0, 1, 2]))
    evidence = 0.00123 * ramp_evidence(3)
    drift = sheet.font.encode_number(torch.tensor(0.25), 1, 2)
    facts = ["epoch 3 · drift ", drift]
    figure = sheet.draw(evidence, find_status(evidence), torch.eye(3), Heading("Grad-CAM · layer4", facts),
                         scale=torch.tensor(0.00123))  # fmt: skip
    bold = sheet.bold.height
    assert read(sheet.bold, figure[:, GAP : GAP + bold, GAP:], INK, PAPER).strip() == "Grad-CAM · layer4"
    line = figure[:, GAP + bold : GAP + bold + sheet.font.height, GAP:]
    assert read(sheet.font, line, INK, PAPER).strip() == "epoch 3 · drift 0.25"
    for scale, words in (
        (torch.tensor(0.00123), "≥ 1.2e-03, one scale for all images"),
        (None, "the most in this image"),
    ):
        drawn = sheet.draw(evidence, find_status(evidence), torch.eye(3), Heading("t"), scale=scale)
        assert words in read_footer(sheet.font, drawn)


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (224, 224), (32, 512), (512, 32), (7, 300), (1, 1)])
@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_sheets_of_any_size_and_count_fit_the_width(size, count):
    facts, codes = ["facts " * 40], torch.arange(count) % len(MapStatus)
    columns, tile, _, width = arrange(count, size)
    assert GAP + columns * (width + GAP) <= WIDTH
    assert tile[1] <= width
    assert width >= 134  # eleven characters
    if min(tile) > 8:
        assert tile[0] / tile[1] == pytest.approx(size[0] / size[1], rel=0.1)
    photos = torch.rand(count, 3, *size)
    figure = make_sheet(photos, torch.arange(count) % 3).draw(
        ramp_evidence(count), codes, torch.randn(count, 3), Heading("a title " * 40, facts)
    )  # fmt: skip
    assert figure.shape[2] == WIDTH
    assert figure.dtype == torch.uint8
    assert figure.float().std() > 5


def test_fit_tiles_shrinks_photos_with_antialiasing():
    stripes = (torch.arange(512) % 4 == 0).float().expand(1, 3, 512, 512)
    assert (fit_tiles(stripes, (128, 128))[..., 4:-4] - 0.25).abs().max() < 0.1
    assert to_gray(torch.ones(1, 3, 2, 2)).max() == pytest.approx(1)


def test_captions_of_any_class_names():
    names = ["**b** <i>", "café Ω", "\U000f0000", "a|b`c`", *(f"class {i}" for i in range(996))]
    labels = torch.tensor([0, 1, 2, 3, 999, 2000])
    sheet = make_sheet(torch.rand(6, 3, 28, 28), labels, names)
    logits = torch.zeros(6, 1000)
    logits[torch.arange(6), labels.clamp(max=999)] = 9
    captions = sheet.captions.draw(logits)
    height = sheet.font.height
    for i, name in enumerate(
        [*names[:2], "2", names[3], "999 class 995"]
    ):  # no font has private characters: the index instead
        line = captions[i][:, 1 : 1 + height, 1:]
        room = sheet.captions.characters - len("✓  100%")
        assert read(sheet.font, line, INK, PAPER).rstrip() == f"label {cut(name, room)}".rstrip()
