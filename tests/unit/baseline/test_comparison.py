"""Comparison of a candidate with baselines."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lightning_gradcam import Baseline, Normalization, Probe
from lightning_gradcam.baseline.summary import BaselineSummary
from tests.helpers.baselines import NORM, bars, trained
from tests.helpers.lit import Lit
from tests.helpers.models import full_autograd, perturbed, plain_gradcam


def test_same_weights_pass_in_any_dtype_and_memory_format(baseline, model):
    for same in (copy.deepcopy(model), copy.deepcopy(model).double(), model.to(memory_format=torch.channels_last)):
        report = baseline.compare(same)
        assert (report.status, report.exit_code, report.passed) == ("pass", 0, True)
        assert report.findings[0].mean > 0.999
        assert report.changed_predictions == 0
    report = baseline.compare(copy.deepcopy(model).double())
    assert report.differences["dtype"] == ("torch.float32", "torch.float64")


def test_mean_equals_that_of_images_correlated_one_by_one(baseline, model):
    other = trained(seed=3)
    report = baseline.compare(other, profile="next-checkpoint")
    probe, layer, values = bars(), "features", []
    for i in range(len(probe)):
        pair = []
        for net in (model, other):
            activations, gradients = full_autograd(
                net, layer, probe.images[i : i + 1], lambda o, i=i: o[:, probe.labels[i]]
            )
            pair.append(plain_gradcam(activations, gradients).relu().flatten().numpy())
        values.append(0.0 if any((p == 0).all() for p in pair) else spearmanr(*pair).statistic)
    assert report.findings[0].mean == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert report.findings[0].worst[0].index == min(range(len(values)), key=values.__getitem__)
    assert report.status == "regressed"
    assert report.exit_code == 1


@pytest.mark.parametrize(
    ("plant", "caught"),
    [
        (lambda model, probe: (trained(seed=5), probe), True),
        (
            lambda model, probe: (
                model,
                Probe(probe.images * 0.25 / 0.5 - 1, labels=probe.labels, pixels=Normalization((0.9,), (0.5,))),
            ),
            True,
        ),
        (lambda model, probe: (model, probe), False),
    ],
    ids=["other weights", "wrong normalisation", "nothing"],
)
def test_compare_detects_planted_changes_only(baseline, model, plant, caught):
    candidate, probe = plant(model, bars())
    report = baseline.compare(candidate, probe=probe)
    assert (report.status == "regressed") == caught, report.text()
    assert report.status in ("pass", "regressed")


def test_compare_explains_the_class_of_the_baseline(model):
    baseline = Baseline.record(model, Probe(bars().images, pixels=NORM))  # the predicted one
    flipped = copy.deepcopy(model)
    with torch.no_grad():
        flipped.head.bias += torch.tensor([50.0, 0, 0])  # predicts the first class, from the same maps
    report = baseline.compare(flipped)
    assert report.status == "pass"
    assert report.changed_predictions > 0.5
    report = baseline.compare(flipped, thresholds={"changed_predictions": 0.1})
    assert report.status == "regressed"
    assert "changed_predictions" in report.reason


def test_retrain_is_relative_to_differences_between_runs():
    probe = bars()
    baselines = [Baseline.record(trained(seed=0), probe)]
    baselines += [Baseline.record(trained(seed=seed), probe, like=baselines[0]) for seed in range(1, 5)]
    first, *beside = baselines
    few = first.compare(trained(seed=6), profile="retrain", beside=beside[:3])
    assert few.status == "incompatible"
    assert "at least 5 training runs" in few.reason
    twice = first.compare(trained(seed=6), profile="retrain", beside=[*beside[:3], beside[0]])
    assert twice.status == "incompatible"  # the same training twice tells nothing
    report = first.compare(trained(seed=6), profile="retrain", beside=beside)
    assert report.status in ("pass", "inconclusive"), report.text()
    values = report.findings[0]
    similarity = lambda a, b: a.compare(b, profile="next-checkpoint").findings[0].mean  # noqa: E731
    candidate = Baseline.record(trained(seed=6), probe, like=first)
    to = [similarity(b, candidate) for b in baselines]
    among = [similarity(a, b) for i, a in enumerate(baselines) for b in baselines[:i]]
    assert values.mean == pytest.approx(sum(to) / len(to) - sum(among) / len(among), abs=1e-4)
    assert values.threshold <= -0.05
    untrained = perturbed(Lit())
    assert first.compare(untrained, profile="retrain", beside=beside).status == "regressed"


def test_few_images_cause_a_warning(model):
    report = Baseline.record(model, bars(20)).compare(model)
    assert any("images have comparable maps" in warning for warning in report.warnings)
    assert not Baseline.record(model, bars(64)).compare(model).warnings


def test_zero_maps_are_inconclusive_and_lost_maps_regress(model):
    dead = copy.deepcopy(model)
    with torch.no_grad():
        dead.features[4].weight.zero_()
        dead.features[4].bias.fill_(-1)
    nothing = Baseline.record(dead, bars(), layers="features")
    assert nothing.compare(dead).status == "inconclusive"
    assert nothing.compare(dead).exit_code == 3
    report = Baseline.record(model, bars(), layers="features").compare(dead)
    assert report.status == "regressed"
    assert report.findings[0].degenerate == (0, 1)


def test_warning_counts_images_with_comparable_maps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))
    images = torch.rand(80, 1, 4, 4)
    baseline = Baseline.record(model, images)
    [key] = baseline.explanation.evidence
    evidence = baseline.explanation.evidence[key].abs() + torch.rand(80, 2, 2)
    evidence[:30] = 0
    flawed = replace(baseline.explanation, evidence={key: evidence})
    [warning] = replace(baseline, explanation=flawed).compare(replace(baseline, explanation=flawed)).warnings
    assert warning.startswith("Only 50 images have comparable maps")


@pytest.mark.parametrize("threshold", ["q05", "q50", "ssim"])
def test_thresholds_without_comparable_maps_are_inconclusive(threshold):
    model = trained()
    torch.nn.init.zeros_(model.head.weight)
    baseline = Baseline.record(model, bars(8))
    assert baseline.compare(model, thresholds={threshold: 0.5}).status == "inconclusive"


@pytest.mark.parametrize("stored", ["hash", "images"])
def test_report_embeds_images_only_if_baseline_stores_them(baseline, model, stored):
    recorded = Baseline.record(model, bars(), store=stored)
    changed = trained(seed=5)
    for candidate in (changed, Baseline.record(changed, bars(), like=recorded)):
        report = recorded.compare(candidate, probe=bars()) if candidate is changed else recorded.compare(candidate)
        assert bool(report.pictures) == (stored == "images")
        assert ("data:image" in report.html()) == (stored == "images")


def test_notes_and_warnings_recommend_the_same_number(model):
    few = Baseline.record(model, bars(8))
    [warning] = few.compare(model).warnings
    [note] = BaselineSummary.from_baseline(few).warnings
    for text in (warning, note):
        assert re.findall(r"below (\d+)", text) == ["64"]
        assert re.findall(r"(\d+) are recommended", text) == ["128"]
