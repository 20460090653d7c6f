"""The picture of one look, read back from its pixels."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from lightning_gradcam.explainer.map_status import MapStatus, find_status
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.captions import GAP
from lightning_gradcam.render.colors import INK, PAPER, ColorTable, lay_over, to_gray
from lightning_gradcam.render.photos import fit_tiles, restore_photos
from lightning_gradcam.render.sheet import WIDTH, Arrangement, Sheet, arrange
from tests.helpers.models import examples, find, read

NAMES = ["pine", "oak", "sailing boat on a lake"]


def sheet_of(photos: Tensor, labels: Tensor | None = None, names: list[str] = NAMES, **kwargs) -> Sheet:
    return Sheet.of(Probe(photos, labels=labels), photos, names, **kwargs)


def ramp_evidence(count: int) -> Tensor:
    return torch.linspace(0, 1, 16).reshape(1, 4, 4).repeat(count, 1, 1)


def bytes_of(photos: Tensor) -> Tensor:
    return (photos * 255).round().to(torch.uint8)


@pytest.mark.parametrize(("size", "count", "channels"), [((28, 28), 16, 1), ((32, 32), 3, 3), ((64, 48), 2, 3)])
def test_true_colours_in_the_picture(size, count, channels):
    pixels = torch.randint(0, 256, (count, channels, *size)) / 255
    norm = Normalization((0.3, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels])
    photos, note = restore_photos(norm.normalize(pixels), norm)
    assert note.startswith("colours restored with mean (0.3")
    sheet = sheet_of(photos)
    picture = sheet.draw(ramp_evidence(count), torch.zeros(count), torch.zeros(count, 0), title="t")
    factor = sheet.photos.shape[-1] // size[1]
    assert factor >= 2  # tiny images are enlarged, and their pixels stay square
    exact = bytes_of(pixels).expand(-1, 3, -1, -1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    places = [find(picture, photo) for photo in exact]
    assert [len(place) for place in places] == [1] * count
    assert sorted(place[0] for place in places) == [place[0] for place in places]  # row by row, in order


def test_how_other_images_become_photos():
    pixels = torch.rand(2, 3, 5, 5)
    as_they_are, note = restore_photos(pixels)
    assert torch.equal(as_they_are, pixels)
    assert "shown as they are" in note
    from_bytes, note = restore_photos((pixels * 255).byte())
    assert torch.equal(from_bytes, (pixels * 255).byte() / 255)
    assert "0..255" in note
    stretched, note = restore_photos(pixels * 4 - 2)
    low, high = pixels.min(), pixels.max()
    torch.testing.assert_close(stretched, (pixels - low) / (high - low))
    assert "not true (pass `pixels=`" in note
    wrong, note = restore_photos(pixels, Normalization((0.5,) * 3, (9.0,) * 3))
    assert torch.equal(wrong, pixels)
    assert "is not used" in note
    wrong, note = restore_photos(pixels, Normalization((0.5,) * 4, (0.2,) * 4))
    assert torch.equal(wrong, pixels)
    assert "4 channels, the images have 3" in note
    many = torch.rand(2, 7, 5, 5)
    mean, note = restore_photos(many)
    torch.testing.assert_close(mean, many.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    assert "the 7 channels are shown as their mean" in note
    broken = pixels.clone()
    broken[0, 0, 0, 0], broken[1, 0, 0, 0] = torch.nan, torch.inf
    shown, _ = restore_photos(broken)
    assert torch.equal(shown, broken.nan_to_num(0, 0, 0))
    flat, _ = restore_photos(torch.full((1, 1, 4, 4), -3.0))
    assert flat.isfinite().all()


@examples(150)
@given(st.sampled_from(["inferno", "viridis", "gray"]), st.integers(0, 255), st.floats(0.1, 0.85))
def test_overlay_equals_a_replica(colormap, step, under):
    """Colour of evidence over grey: 80 % of it at most, and a shade that the photo gives."""
    found = lay_over(torch.full((1, 1, 1, 1), under), torch.full((1, 1, 1), step / 255), ColorTable.named(colormap))
    opacity = 0.8 * step / 255
    color = np.array(matplotlib.colormaps[colormap](step / 255)[:3]) * (0.65 + 0.5 * under)
    expected = 255 * np.clip((1 - opacity) * under + opacity * color, 0, 1)
    assert np.abs(found[0, :, 0, 0].numpy() - expected).max() <= 1  # rounding


def test_no_evidence_leaves_the_grey_photo_alone_and_more_moves_to_the_end_of_the_ramp():
    photos = torch.rand(1, 3, 64, 64)
    sheet = sheet_of(photos, arrangement=Arrangement(1, (64, 64)))
    evidence = torch.linspace(-1, 1, 64).expand(1, 64, 64)  # rises to the right; nothing in the left half
    tile = sheet.overlays(evidence, find_status(evidence))[0].float()
    left = tile[:, :, :32]
    assert torch.equal(left[0], left[1])
    assert torch.equal(left[1], left[2])
    luma = (photos[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert (left[0] - 255 * (0.1 + 0.75 * luma[:, :32])).abs().max() <= 0.51
    steps = torch.linspace(0, 1, 256).expand(1, 1, -1)
    for colormap in ("inferno", "viridis"):
        ramp = ColorTable.named(colormap)
        dark, bright = (lay_over(torch.full((1, 1, 1, 256), g), steps, ramp)[0, :, 0].float() for g in (0.1, 0.85))
        to_the_end = (dark - dark[:, -1:]).norm(dim=0)
        assert (to_the_end - to_the_end.cummin(0).values).max() <= 3  # rounding
        shows_through = (bright - dark).sum(0)
        assert shows_through[-1] > 0.3 * shows_through[0]  # the object stays visible
        assert len({tuple(color) for color in dark.T.tolist()}) > 150  # and evidence can be told apart


@pytest.mark.parametrize("size", [(28, 28), (224, 224), (32, 512), (512, 32)])
def test_a_degenerate_tile_carries_the_word(size):
    photos = torch.rand(len(MapStatus), 3, *size)
    sheet = sheet_of(photos)
    codes = torch.arange(len(MapStatus), dtype=torch.uint8)
    tiles = sheet.overlays(ramp_evidence(len(MapStatus)), codes)
    middle = (tiles.shape[2] - sheet.font.height) // 2
    for tile, word in zip(tiles[1:], [s.text for s in MapStatus][1:], strict=True):
        band = tile[:, middle : middle + sheet.font.height]
        expected = word if len(word) <= sheet.characters else word[: sheet.characters - 1] + "…"
        assert read(sheet.font, band, PAPER, INK).strip() == expected
        rest = torch.cat([tile[:, :middle], tile[:, middle + sheet.font.height :]], 1)
        assert torch.equal(rest[0], rest[2])  # around it the grey photo, without evidence
    sound = tiles[0].float()
    assert (sound[0] - sound[2]).abs().max() > 20
    assert not torch.equal(tiles[1], tiles[2])


def cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def test_right_and_wrong_differ_in_words_and_in_ink():
    photos = torch.rand(3, 3, 28, 28)
    sheet = sheet_of(photos, torch.tensor([0, 1, 2]))
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 0.5], [-1, -1, 2]])
    captions, height = sheet.captions(logits), sheet.font.height
    room = sheet.characters - len("✓  100%")
    for i, (mark, label, predicted) in enumerate([("✓", 0, 0), ("✗", 1, 2), ("✓", 2, 2)]):
        ink, paper = (INK, PAPER) if mark == "✓" else (PAPER, INK)
        above, below = (
            read(sheet.font, captions[i][:, top : top + height, 1:-1], ink, paper) for top in (1, 1 + height)
        )
        assert above.rstrip() == f"label {cut(NAMES[label], room)}".rstrip()
        sure = 100 * float(logits[i].softmax(0)[predicted])
        assert below.rstrip() == f"{mark} {cut(NAMES[predicted], room)} {sure:3.0f}%"
    unlabelled = sheet_of(photos).captions(logits)
    broken = sheet.captions(torch.tensor([[torch.nan, 0, 0]] * 3))
    line = read(sheet.font, broken[0][:, 1 + height : 1 + 2 * height, 1:-1], PAPER, INK)
    assert line.split() == ["✗", "–%"]  # numbers that are none predict nothing, also not the first class
    assert read(sheet.font, unlabelled[1][:, 1:-1, 1:-1], INK, PAPER).startswith("  sailing")
    assert sheet_of(photos).captions(torch.zeros(3, 0)).shape == (3, 3, 0, sheet.photos.shape[-1])


def test_head_and_foot_say_what_is_shown():
    sheet = sheet_of(torch.rand(3, 3, 28, 28), torch.tensor([0, 1, 2]))
    evidence = 0.00123 * ramp_evidence(3)
    drift = sheet.font.fixed(torch.tensor(0.25), 1, 2)
    facts = ["epoch 3 · drift ", drift]
    picture = sheet.draw(evidence, find_status(evidence), torch.eye(3), title="Grad-CAM · layer4", facts=facts,
                         scale=torch.tensor(0.00123))  # fmt: skip
    bold = sheet.bold.height
    assert read(sheet.bold, picture[:, GAP : GAP + bold, GAP:], INK, PAPER).strip() == "Grad-CAM · layer4"
    line = picture[:, GAP + bold : GAP + bold + sheet.font.height, GAP:]
    assert read(sheet.font, line, INK, PAPER).strip() == "epoch 3 · drift 0.25"
    for scale, words in (
        (torch.tensor(0.00123), "≥ 1.2e-03, one scale for all images"),
        (None, "the most in this image"),
    ):
        drawn = sheet.draw(evidence, find_status(evidence), torch.eye(3), title="t", scale=scale)
        wanted = sheet.font.draw(sheet.font.encode([words])[0])
        strip = (PAPER[0] - drawn[0, -GAP - sheet.font.height : -GAP].float()) / (PAPER[0] - 115)
        assert any((strip[:, x : x + wanted.shape[1]] - wanted).abs().max() < 0.02
                   for x in range(strip.shape[1] - wanted.shape[1]))  # fmt: skip


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (224, 224), (32, 512), (512, 32), (7, 300), (1, 1)])
@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_every_size_and_count_fits(size, count):
    facts, codes = ["facts " * 40], torch.arange(count) % len(MapStatus)
    columns, tile, _ = arrange(count, size)
    assert GAP + columns * (tile[1] + GAP) <= WIDTH
    assert tile[1] >= 84 or tile[1] > 84 - size[1] > 42  # twelve characters, or the last whole multiple below
    if min(tile) > 8:
        assert tile[0] / tile[1] == pytest.approx(size[0] / size[1], rel=0.1)
    photos = torch.rand(count, 3, *size)
    picture = sheet_of(photos, torch.arange(count) % 3).draw(
        ramp_evidence(count), codes, torch.randn(count, 3), title="a title " * 40, facts=facts
    )  # fmt: skip
    assert picture.shape[2] <= WIDTH
    assert picture.dtype == torch.uint8
    assert picture.float().std() > 10


def test_photos_are_made_smaller_with_antialiasing():
    stripes = (torch.arange(512) % 4 == 0).float().expand(1, 3, 512, 512)
    assert (fit_tiles(stripes, (128, 128))[..., 4:-4] - 0.25).abs().max() < 0.1
    assert to_gray(torch.ones(1, 3, 2, 2)).max() == pytest.approx(0.85)


def test_class_names_of_any_kind_and_number():
    names = ["**b** <i>", "café Ω", "猫", "a|b`c`", *(f"class {i}" for i in range(996))]
    labels = torch.tensor([0, 1, 2, 3, 999, 2000])
    sheet = sheet_of(torch.rand(6, 3, 28, 28), labels, names)
    logits = torch.zeros(6, 1000)
    logits[torch.arange(6), labels.clamp(max=999)] = 9
    captions = sheet.captions(logits)
    height = sheet.font.height
    for i, name in enumerate([*names[:4], names[999]]):
        line = captions[i][:, 1 : 1 + height, 1:]
        assert read(sheet.font, line, INK, PAPER).rstrip() == f"label {name}"
