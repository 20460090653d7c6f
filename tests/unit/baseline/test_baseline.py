"""Baselines: kept whole, compared with what they are of, refused where nothing can be said."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lightning_gradcam import Baseline, Normalization, Probe, Variant, explain
from lightning_gradcam.attacks import restore_pixels
from lightning_gradcam.baseline.fingerprint import hash_pixels, hash_weights
from lightning_gradcam.baseline.profiles import PROFILES
from lightning_gradcam.baseline.verdict import MeanEstimate, judge
from lightning_gradcam.errors import IncompatibleError
from lightning_gradcam.methods import EQUATIONS
from tests.helpers.lit import Bars, Lit
from tests.helpers.models import TinyResNet, TinyVGG, full_autograd, perturbed, plain_gradcam

NORM = Normalization((0.4, 0.4, 0.4), (0.25, 0.25, 0.25))


def bars(count=70, seed=0):
    data = Bars(count, seed)
    return Probe(torch.stack([data[i][0] for i in range(count)]), labels=data.labels, pixels=NORM)


def trained(seed=0, steps=30, model=None):
    """A model that has learned something."""
    torch.manual_seed(seed)
    model = (model or Lit()).train()
    optimizer, probe = torch.optim.Adam(model.parameters(), 1e-2), bars(48, seed + 1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(probe.images), probe.labels).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def baseline(model):
    return Baseline.record(model, bars())


def test_it_holds_what_explain_finds_and_leaves_the_model_as_found(model):
    model = copy.deepcopy(model).train()
    kept, probe = copy.deepcopy(model.state_dict()), bars(9)
    baseline = Baseline.record(model, probe, layers=["features", "features.2"], method=["gradcam", "layercam"])
    assert model.training
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    found = explain(
        model, probe, layers=["features", "features.2"], method=["gradcam", "layercam"], target=probe.labels
    )
    assert list(baseline.explanation.evidence) == list(found.evidence)
    for key, evidence in found.evidence.items():
        torch.testing.assert_close(baseline.explanation.evidence[key], evidence)
    assert torch.equal(baseline.explanation.classes, probe.labels)
    torch.testing.assert_close(baseline.images, restore_pixels(probe))
    torch.testing.assert_close(baseline.probe.images, probe.images)
    assert baseline.metadata.weights_hash == hash_weights(model)
    assert (
        baseline.metadata.environment["torch"] == torch.__version__.split("+")[0]
        or "torch" in baseline.metadata.environment
    )


@pytest.mark.parametrize("store", ["images", "hash"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_file_gives_back_what_was_kept(model, tmp_path, store, labelled):
    probe = bars(5) if labelled else Probe(bars(5).images, pixels=NORM)
    one = Baseline.record(model, probe, store=store, layers="stages")
    one.save(tmp_path / "new" / "b.safetensors")
    other = Baseline.load(tmp_path / "new" / "b.safetensors")
    assert other.metadata == one.metadata
    for key, evidence in one.explanation.evidence.items():
        assert torch.equal(other.explanation.evidence[key], evidence)
        assert torch.equal(other.explanation.map_status[key], one.explanation.map_status[key])
        assert other.explanation.layers[key].name == one.explanation.layers[key].name
    assert torch.equal(other.explanation.logits, one.explanation.logits)
    assert torch.equal(other.explanation.classes, one.explanation.classes)
    assert (other.images is None) == (store == "hash")
    assert (other.labels is None) == (not labelled)
    if store == "hash":
        with pytest.raises(IncompatibleError, match=r"only the hash of its images\. Pass the same images"):
            other.compare(model)
        assert other.compare(model, probe=probe).status == "pass"
    assert other.compare(one).findings[0].mean == 1
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["b.safetensors"]


def test_the_same_weights_pass_whatever_they_run_in(baseline, model):
    for same in (copy.deepcopy(model), copy.deepcopy(model).double(), model.to(memory_format=torch.channels_last)):
        report = baseline.compare(same)
        assert (report.status, report.exit_code, report.passed) == ("pass", 0, True)
        assert report.findings[0].mean > 0.999
        assert report.changed_predictions == 0
    report = baseline.compare(copy.deepcopy(model).double())
    assert report.differences["dtype"] == ("torch.float32", "torch.float64")


def test_the_mean_is_that_of_maps_explained_and_correlated_one_by_one(baseline, model):
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
def test_what_is_planted_is_caught_and_nothing_else(baseline, model, plant, caught):
    candidate, probe = plant(model, bars())
    report = baseline.compare(candidate, probe=probe)
    assert (report.status == "regressed") == caught, report.text()
    assert report.status in ("pass", "regressed")


def test_a_wrong_normalisation_is_a_regression_and_other_images_are_incompatible(baseline, model):
    pixels = restore_pixels(bars())
    nearly = Probe(NORM.normalize((pixels + 1.5 / 255).clamp(0, 1)), labels=bars().labels, pixels=NORM)
    report = baseline.compare(model, probe=nearly)
    assert report.status == "pass"
    assert any("another image decoder" in warning for warning in report.warnings)
    others = Probe(NORM.normalize((pixels + 4 / 255).clamp(0, 1)), labels=bars().labels, pixels=NORM)
    report = baseline.compare(model, probe=others)
    assert (report.status, report.exit_code) == ("incompatible", 4)
    assert "different images" in report.reason


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda model: Baseline.record(model, bars(69)), "contains 70 images, but the candidate contains 69"),
        (
            lambda model: Baseline.record(model, bars(), method="layercam"),
            "the method gradcam, but the candidate uses layercam",
        ),
        (
            lambda model: Baseline.record(model, bars(), layers="features.2"),
            "explains features, but the candidate explains features.2",
        ),
        (lambda model: Baseline.record(model, bars(70, seed=9)), "different images: pixels differ"),
        (lambda model: Baseline.record(model, bars(70, seed=9), store="hash"), "their hashes differ"),
        (lambda model: Baseline.record(model, bars(), target=1), "explain different classes in 6.%"),
    ],
)
def test_what_cannot_be_compared_is_incompatible_and_never_a_regression(baseline, model, other, message):
    report = baseline.compare(other(model))
    assert (report.status, report.findings) == ("incompatible", ())
    assert message.replace("6.%", "") in report.reason


def test_the_class_of_the_baseline_is_explained(model):
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


@pytest.mark.parametrize(
    "method",
    [
        *EQUATIONS,
        "scorecam",
        "ablationcam",
        Variant("gradcam", gradients="abs"),
        Variant("layercam", smooth="principal"),
    ],
)
def test_every_method_is_found_again_by_its_name(model, tmp_path, method):
    baseline = Baseline.record(model, bars(8), method=method)
    baseline.save(tmp_path / "b")
    assert Baseline.load(tmp_path / "b").compare(model).findings[0].mean == pytest.approx(1)


def test_a_method_that_is_not_known_here_is_named(model):
    def mine(activations, gradients):
        return activations.sum(1)

    baseline = Baseline.record(model, bars(8), method=mine)
    report = baseline.compare(model)
    assert (report.status, report.exit_code) == ("incompatible", 4)
    assert "method 'mine', which is not registered" in report.reason


def test_retraining_is_measured_by_how_much_trainings_differ():
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


def test_few_images_and_a_noisy_baseline_are_warned_of(model):
    report = Baseline.record(model, bars(20)).compare(model)
    assert any("images have comparable maps" in warning for warning in report.warnings)
    assert not Baseline.record(model, bars(64)).compare(model).warnings


def test_maps_of_nothing_are_inconclusive_and_lost_maps_a_regression(model):
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


def test_what_is_wrong_is_said(baseline, model):
    with pytest.raises(ValueError, match=r"'same-weight'\. Did you mean 'same-weights'"):
        baseline.compare(model, profile="same-weight")
    with pytest.raises(ValueError, match=r"`thresholds` named mean, .* but got 'q07'"):
        baseline.compare(model, thresholds={"q07": 1})
    with pytest.raises(ValueError, match="`store` to be 'images' or 'hash', but got 'no'"):
        Baseline.record(model, bars(4), store="no")
    with pytest.raises(TypeError, match="Expected `probe` to be a Probe"):
        Baseline.record(model, "images")


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), "'features'"),
        (lambda: TinyVGG(classes=2), "classes from 0 to 1"),
        (lambda: Lit(classes=1), "classes from 0 to 1"),
    ],
)
def test_a_model_that_cannot_be_explained_likewise_is_incompatible(baseline, candidate, message):
    report = baseline.compare(candidate())
    assert report.status == "incompatible"
    assert message in report.reason


def test_hashes_tell_weights_and_pixels_apart():
    model, images = TinyResNet(), torch.rand(2, 3, 8, 8)
    assert hash_weights(model) == hash_weights(copy.deepcopy(model))
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.fc.bias[0] += 1e-6
    assert hash_weights(changed) != hash_weights(model)
    assert hash_pixels(images) != hash_pixels(images + 1 / 255)
    assert hash_pixels(images) != hash_pixels(images.flip(0))
    assert hash_pixels(images) != hash_pixels(images.reshape(2, 3, 4, 16))


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0.99, 1.0, "pass"),
        (0.9899, 1.0, "inconclusive"),
        (0.985, 0.9899, "regressed"),
        (0.98, 0.99, "inconclusive"),
        (0.2, 0.3, "regressed"),
    ],
)
def test_the_bounds_decide_on_their_side_of_the_threshold(low, high, status):
    found, reason = judge(PROFILES["same-weights"], MeanEstimate(low, low, high, 128), 0.99, {})
    assert found == status
    assert f"{low:.3f}" in reason
    assert judge(PROFILES["same-weights"], MeanEstimate(low, low, high, 1), 0.99, {})[0] == "inconclusive"
    limited = PROFILES["same-weights"].with_thresholds({"q05": 0.5, "center_shift": 0.1})
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": 0.49, "center_shift": 0})[0] == "regressed"
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": 0.5, "center_shift": 0.11})[0] == "regressed"
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": 0.5, "center_shift": 0.1})[0] == "pass"
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": math.nan, "center_shift": 0})[0] == "regressed"
