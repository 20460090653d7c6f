"""Snapshots of every target: captions name what each map explains, and curves compare the same classes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_gradcam import Baseline, CosineSimilarity, GradCAMCallback, Margin, Probe, TopK, explain
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor, resolve_target
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.batch import read_batch
from lightning_gradcam.probe.collector import ProbeCollector, drop_foreign_labels
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.stability import mean_and_error, spearman
from lightning_gradcam.targets import TARGETS, coerce_target, freeze_classes
from lightning_gradcam.targets.logits import predictions
from tests.helpers.device_waits import Waits
from tests.helpers.lit import Bars, Lit, fit
from tests.helpers.models import assert_close, find, perturbed, read
from tests.regimes.scores import Embeds, MultiLabel, PutsOutProbabilities, SeveralBars, pairs, several

NAMES = ("top", "middle", "bottom")


def bars(count=6, data=Bars):
    rows = [data(count)[i] for i in range(count)]
    return Probe(torch.stack([r[0] for r in rows]), labels=torch.stack([torch.as_tensor(r[1]) for r in rows]))


def watched(target, probe, make=Lit, **how):
    torch.manual_seed(0)
    model = perturbed(make())
    target = None if target == "auto" else coerce_target(target)
    plan = prepare(model, probe, target=target or TARGETS["predicted"], layers=["features"], **how)
    target = resolve_target(target, probe, plan)
    return ProbeMonitor(probe, ShardedExplainer(plan), target, DisplayConfig(), class_names=NAMES), model


def line_below(picture, sheet, y, x):
    """What stands in the caption line that begins at a place, dark on light."""
    strip = picture[:, y + 1 : y + 1 + sheet.font.height, x + 1 : x + 1 + sheet.captions.characters * sheet.font.width]
    return read(sheet.font, strip, INK, PAPER).rstrip()


def test_topk_figure_has_a_row_per_class_with_its_name():
    probe = bars()
    watch, model = watched("topk", probe)
    look = watch.take_snapshot(model, "start")
    picture, sheet = look.figures["features"], watch.figures.sheet
    height, line, sure = sheet.image_tiles.shape[-2], sheet.font.height + 2, look.explanation.logits.softmax(1)
    order = look.explanation.logits.argsort(1, descending=True)
    for i in (0, 5):
        [(y, x)] = find(picture, sheet.image_tiles[i])
        below, name = y + height, sheet.font.height  # the name of a row is above it
        for rank in range(3):
            key = f"features/top {rank + 1}"
            tile = sheet.draw_overlays(look.explanation.evidence[key], look.explanation.map_status[key])[i]
            below += 2 + name
            assert torch.equal(picture[:, below : below + height, x : x + tile.shape[2]], tile)
            chosen = int(order[i, rank])
            said = line_below(picture, sheet, below + height, x)
            assert said.split() == [NAMES[chosen], f"{round(float(sure[i, chosen]) * 100)}%"]
            below += height + line
    assert list(look.figures) == ["features"]


def test_multilabel_figure_has_rows_with_class_probabilities():
    probe = bars(6, SeveralBars)
    watch, model = watched("auto", probe, MultiLabel)
    look = watch.take_snapshot(model, "start")
    picture, sheet = look.figures["features"], watch.figures.sheet
    assert (
        list(look.explanation.evidence)
        == [f"features/label {n}" for n in range(1, 4)][: int(probe.labels.sum(1).max())]
    )
    own, height = look.explanation.logits.sigmoid(), sheet.image_tiles.shape[-2]
    for i, labels in enumerate(probe.labels.tolist()):
        [(y, x)] = find(picture, sheet.image_tiles[i])
        said = line_below(picture, sheet, y + 2 * height + 2 + sheet.font.height, x)
        first = labels.index(1) if 1 in labels else None
        assert said.split() == ([] if first is None else [NAMES[first], f"{round(float(own[i, first]) * 100)}%"])
    assert "accuracy" not in look.numbers
    assert_close(look.numbers["confidence"], own.max(1).values.mean())
    unlabelled = [i for i in range(6) if not probe.labels[i].any()]
    assert look.explanation.degenerate["features/label 1"][unlabelled[0]] == "no label"
    flawed = [d for d in look.explanation.degenerate["features/label 1"] if d not in (None, "no label")]
    assert_close(look.numbers["degenerate"] + 1, torch.tensor(1 + len(flawed) / (6 - len(unlabelled))))


def test_pair_figure_shows_both_photos_maps_and_score():
    probe = pairs()
    watch, model = watched(CosineSimilarity(), probe, Embeds)
    look = watch.take_snapshot(model, "start")
    assert list(look.figures) == ["features"]
    picture, sheet, other = look.figures["features"], watch.figures.sheet, watch.figures.references
    height, name = sheet.image_tiles.shape[-2], sheet.font.height
    for i in (0, 3):
        [(y, x)] = find(picture, sheet.image_tiles[i])
        for key, theirs, top in (("features", sheet, y), ("features/reference", other, y + 2 * height + name + 4)):
            tile = theirs.draw_overlays(look.explanation.evidence[key], look.explanation.map_status[key])[i]
            assert torch.equal(picture[:, top : top + height, x : x + tile.shape[2]], theirs.image_tiles[i])
            below = top + height + 2 + name
            assert torch.equal(picture[:, below : below + height, x : x + tile.shape[2]], tile)
        said = line_below(picture, sheet, y + 4 * height + 2 * name + 6, x)
        assert said.split() == ["score", f"{float(look.explanation.scores[''][i]):.2f}"] or said.startswith("score-")
    assert "confidence" not in look.numbers
    again = watch.take_snapshot(model, "again")
    assert {"drift", "drift/features/reference"} <= set(again.numbers)


@pytest.mark.parametrize(("target", "probe", "make"), [
    ("topk", bars, Lit), ("margin", bars, Lit), ("positives", lambda: bars(6, SeveralBars), MultiLabel),
    ("label", lambda: bars(6, SeveralBars), MultiLabel), ("cosine", pairs, Embeds), ("norm", bars, Embeds),
])  # fmt: skip
def test_targets_never_wait_for_the_device_and_resume(target, probe, make):
    watch, model = watched(target, probe(), make)
    watch.take_snapshot(model, "start")
    with Waits() as waits:
        watch.take_snapshot(model, "epoch 1")
    assert waits.seen == []
    other, _ = watched(target, probe(), make)
    other.load_state_dict(watch.state_dict())
    assert other.signature == watch.signature
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    one, two = watch.take_snapshot(model, "now"), other.take_snapshot(model, "now")
    assert all(torch.equal(two.figures[key], figure) for key, figure in one.figures.items())
    assert {n: float(v) for n, v in one.numbers.items()} == {n: float(v) for n, v in two.numbers.items()}


def test_topk_drift_compares_the_same_classes():
    probe = bars()
    watch, model = watched(TopK(2), probe)
    first = watch.take_snapshot(model, "start").explanation
    model.head.load_state_dict(
        {name: tensor.roll(1, 0) for name, tensor in model.head.state_dict().items()}
    )  # other classes are the best ones
    second = watch.take_snapshot(model, "epoch 1")
    assert not torch.equal(second.explanation.explained["top 1"], first.explained["top 1"])
    for rank, end in (("top 1", ""), ("top 2", "/features/top 2")):
        same = explain(model, probe, layers="features", target=freeze_classes(first.explained[rank])).maps["features"]
        expected = mean_and_error(1 - spearman(first.maps[f"features/{rank}"], same))[0]
        assert_close(second.numbers[f"drift{end}"], expected)


def test_margin_drift_compares_the_same_two_classes():
    probe = bars()
    watch, model = watched("margin", probe)
    first = watch.take_snapshot(model, "start").explanation
    model.head.load_state_dict({name: tensor.roll(1, 0) for name, tensor in model.head.state_dict().items()})
    second = watch.take_snapshot(model, "epoch 1")
    best, rival = first.explained[""].unbind(1)

    def difference(out, rows):
        at = torch.arange(len(rows))  # a trace has two of them
        return out[at, best[at]] - out[at, rival[at]]

    same = explain(model, probe, layers="features", target=difference).maps["features"]
    assert_close(second.numbers["drift"], mean_and_error(1 - spearman(first.maps["features"], same))[0])


def test_attacked_images_are_explained_for_the_clean_classes():
    data = Bars(6)
    images = data.pixels.clamp(0, 1)
    torch.manual_seed(0)
    model = perturbed(Lit())
    plan = prepare(model, Probe(images), target=TopK(2), layers=["features"])
    watch = ProbeMonitor(
        Probe(images), ShardedExplainer(plan), TopK(2), DisplayConfig(), attack=lambda m, x, y: (x + 0.3).clamp(0, 1)
    )
    look = watch.take_snapshot(model, "start")
    clean, attacked = look.explanation, look.attacked.explanation
    assert all(torch.equal(clean.explained[end], attacked.explained[end]) for end in ("top 1", "top 2"))
    assert not torch.equal(clean.logits.argsort(1), attacked.logits.argsort(1))
    assert set(look.figures) == {"features/top 1", "features/top 2"}


def test_collected_multilabel_images_cover_their_labels():
    batch = {"image": torch.rand(4, 3, 8, 8), "findings": torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0]])}
    probe = read_batch(batch)
    assert probe.multilabel
    assert torch.equal(probe.labels, batch["findings"].long())
    assert torch.equal(probe.extras["findings"], batch["findings"])  # it may be an input as well
    gatherer = ProbeCollector(3)
    gatherer.add(batch)
    assert sorted(gatherer.probe().labels.tolist()) == [[0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert drop_foreign_labels(probe, 4) == (replace(probe, labels=None), "")
    assert drop_foreign_labels(probe, 3)[0].multilabel
    one_hot = replace(probe, labels=torch.eye(4, dtype=torch.long)[[2, 0, 3, 3]])
    assert drop_foreign_labels(one_hot, 4)[0].classes.tolist() == [2, 0, 3, 3]


def test_multilabel_run_logs_a_curve_per_label(tmp_path):
    callback = GradCAMCallback(probe=6, curves="all")
    trainer = fit(tmp_path, [callback], make=MultiLabel, train=several(12), val=several(9, 1))
    assert callback.monitor.target.name == "labels, each"
    assert callback.monitor.figures.sheet.captions.multilabel
    assert {"gradcam/drift", "gradcam/drift/features/label_2"} <= set(trainer.logged_metrics)


def test_unknown_probabilities_warn_once(tmp_path):
    class ByHand(PutsOutProbabilities):
        def forward(self, images):
            scores = Lit.forward(self, images).exp()
            return scores / scores.sum(1, keepdim=True)

    with pytest.warns(UserWarning, match="returns probabilities") as said:
        fit(tmp_path, [GradCAMCallback(probe=4)], make=ByHand)
    assert len([w for w in said if "GradCAM" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning")
        fit(tmp_path, [GradCAMCallback(probe=4)], make=PutsOutProbabilities)


def test_impossible_targets_raise_before_training(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"`probe=Probe\(images, references=\.\.\.\)`"):
        GradCAMCallback(target="cosine")
    with pytest.raises(MisconfigurationException, match="at most 3 classes"):
        fit(tmp_path, [GradCAMCallback(target=TopK(4), probe=bars())])
    with pytest.raises(MisconfigurationException, match="Expected `references`"):
        fit(tmp_path, [GradCAMCallback(target="cosine", probe=bars())])
    with pytest.raises(ValueError, match="one score for one image, but got '3 best classes, each'"):
        Baseline.record(Lit(), bars(), target="topk")
    with pytest.raises(ValueError, match="one score for one image"):
        Baseline.record(Lit(), bars(), target=Margin())


def test_multilabel_confidence_uses_sigmoid():
    sure, chosen = predictions(torch.tensor([[0.0, 3.0, 2.9]]), multilabel=True)
    assert_close(sure, torch.tensor([3.0]).sigmoid())
    assert chosen.tolist() == [1]
