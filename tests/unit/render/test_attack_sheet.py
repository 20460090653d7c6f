"""Figure of a snapshot with an attack: tiles, captions and header."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import PGD, Probe
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.render.arrangement import GAP, SEAM, WIDTH
from lightning_gradcam.render.attack_sheet import AttackSheet
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.stability import spearman
from lightning_gradcam.targets.logits import predictions
from tests.helpers.attacked_monitor import NORM, undecided, watched
from tests.helpers.lit import Bars
from tests.helpers.models import find, read, read_paragraph


def drawn(count=6, **how):
    data = Bars(count)
    probe = Probe(torch.stack([data[i][0] for i in range(count)]), labels=data.labels, pixels=NORM)
    torch.manual_seed(5)
    watch, model = watched(PGD(0.01, 4), probe=probe, model=undecided(probe), layers=["features"], **how)
    return watch, watch.take_snapshot(model, "epoch 2 · step 9")


def crop(duel, tiles):
    """Return what is drawn of the images, without the paper on both sides."""
    missing = tiles.shape[-1] - duel.sheet.tile_size[1]
    return tiles[..., missing // 2 : missing // 2 + duel.sheet.tile_size[1]]


def lines(duel, figure, y, x, wrong):
    """Read the two lines of a caption below the tiles of a photo at (y, x)."""
    font = duel.sheet.font
    ink, paper = (PAPER, INK) if wrong else (INK, PAPER)
    top, width = y + duel.sheet.image_tiles.shape[-2] + 1, 2 * duel.sheet.image_tiles.shape[-1] + SEAM - 2
    return [
        read(font, figure[:, top + i * font.height : top + (i + 1) * font.height, x + 1 : x + 1 + width], ink, paper)
        for i in (0, 1)
    ]


@pytest.mark.parametrize("count", [1, 6, 16])
def test_attack_sheet_draws_clean_and_attacked_images(count):
    watch, look = drawn(count)
    duel, clean, attacked = watch.figures.attack_sheet, look.explanation, look.attacked.explanation
    figure = look.figures["features"]
    assert figure.shape[2] <= WIDTH
    assert figure.dtype == torch.uint8
    height, size = duel.sheet.image_tiles.shape[-2:]
    before, after = (predictions(e.logits) for e in (clean, attacked))
    overlays = duel.sheet.draw_overlays(clean.evidence["features"], clean.map_status["features"])
    agree = spearman(clean.maps["features"], attacked.maps["features"])
    assert (before[1] != after[1]).any() or count == 1
    for i in {0, count // 2, count - 1}:
        [(y, x)] = find(figure, duel.sheet.image_tiles[i])
        assert torch.equal(figure[:, y : y + height, x + size + SEAM : x + 2 * size + SEAM], overlays[i])
        step = 2 * size + SEAM + GAP
        label = int(watch.labels[i])
        for column, (sure, chosen), first in ((0, before, f"label {Bars.classes[label]}"), (1, after, "attacked")):
            right = int(chosen[i]) == label
            said = lines(duel, figure, y, x + column * step, not right)
            assert said[0].strip() == first
            assert said[1].startswith(f"{'✓' if right else '✗'} {Bars.classes[int(chosen[i])]}")
            assert said[1].rstrip().endswith(f"{round(float(sure[i]) * 100):3d}%")
        moved = bool(before[1][i] != after[1][i])
        said = lines(duel, figure, y, x + 2 * step, moved)
        changed = "fooled" if int(before[1][i]) == label else "prediction moved"
        assert said[0].strip() == (changed if moved else "prediction held")
        assert said[1].split()[:2] == ["maps", "agree"]
        assert float(said[1].split()[2]) == pytest.approx(float(agree[i]), abs=0.006) or agree[i].isnan()


def test_map_change_is_red_for_gains_and_blue_for_losses():
    watch, look = drawn()
    duel = watch.figures.attack_sheet
    size = duel.sheet.tile_size
    both = (look.explanation, look.attacked.explanation)
    change = torch.stack(
        [to_heatmaps(e.evidence["features"], e.map_status["features"], tuple(size)) for e in both]
    ).diff(dim=0)[0]
    tile = crop(duel, duel._draw_map_change(both, "features", None)).float()
    redness = tile[:, 0] - tile[:, 2]
    assert (redness[change > 0.1] > 5).all()
    assert (redness[change < -0.1] < -5).all()
    assert (change > 0.1).any()
    assert (change < -0.1).any()
    strong, weak = change > 0.6, (change > 0.1) & (change < 0.3)
    assert not strong.any() or redness[strong].mean() > redness[weak].mean()
    same = duel._draw_map_change((both[0], both[0]), "features", None)
    assert torch.equal(same[:, 0], same[:, 2])  # no change, no color


def test_noise_is_amplified_up_to_the_range():
    watch, look = drawn()
    duel = watch.figures.attack_sheet
    size = duel.sheet.tile_size
    twins = NORM.restore(look.attacked.images).clamp(0, 1)
    tile, gain = duel._draw_noise(twins)
    tile = crop(duel, tile)
    change = twins - NORM.restore(watch.probe.images)
    assert gain == int(0.5 / change.abs().max())
    factor = size[0] // change.shape[-1]
    shown = tile[:, :, factor // 2 :: factor, factor // 2 :: factor].float() / 255
    assert (shown - (0.5 + gain * change)).abs().max() < 0.003
    none, gain = duel._draw_noise(NORM.restore(watch.probe.images))
    assert (crop(duel, none).float() - 127.5).abs().max() <= 0.5


def test_header_counts_moved_predictions_and_averages():
    watch, look = drawn()
    font, both = watch.figures.sheet.font, (look.explanation, look.attacked.explanation)
    figure = look.figures["features"]
    said = read_paragraph(font, figure, GAP + watch.figures.sheet.bold.height)
    said = said[said.index("attack ·") :]
    fooled = predictions(both[0].logits)[1] != predictions(both[1].logits)[1]
    assert said.startswith(f"attack · {int(fooled.sum())} of 6 predictions moved · maps agree ")
    found = float(said.split("maps agree")[1].split(",")[0])
    assert found == pytest.approx(float(watch.tracker.last["adv_similarity"]), abs=0.006)
    assert 0 < int(fooled.sum()) < 6
    agree = torch.where(fooled, -0.5, 0.25)
    codes = watch.figures.attack_sheet._describe_attack(both, "features", agree)
    words = "".join(c if isinstance(c, str) else "".join(font.characters[i] for i in c) for c in codes)
    assert f"maps agree {'-' if agree.mean() < 0 else ' '}{abs(agree.mean()):.2f}, where" in words
    assert "where the prediction held  0.25" in words
    broken = sum(flaw is not None for flaw in both[1].degenerate["features"])
    assert f"{broken} of 6 maps degenerate" in said


def test_each_method_has_its_own_attack_figure():
    watch, look = drawn(method=["gradcam", "layercam"])
    assert list(look.figures) == ["features/gradcam", "features/layercam"]
    assert isinstance(watch.figures.attack_sheet, AttackSheet)
    assert not torch.equal(*look.figures.values())
