"""Baselines: recorded, saved and loaded."""

from __future__ import annotations

import copy

import pytest
import torch

from lightning_gradcam import Baseline, Probe, Variant, explain
from lightning_gradcam.attacks import restore_pixels
from lightning_gradcam.baseline.fingerprint import hash_weights
from lightning_gradcam.errors import IncompatibleError
from lightning_gradcam.methods import EQUATIONS
from tests.helpers.baselines import NORM, bars


def test_record_equals_explain_and_leaves_the_model_unchanged(model):
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
@pytest.mark.parametrize("labeled", [True, False])
def test_load_restores_the_saved_baseline(model, tmp_path, store, labeled):
    probe = bars(5) if labeled else Probe(bars(5).images, pixels=NORM)
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
    assert (other.labels is None) == (not labeled)
    if store == "hash":
        with pytest.raises(IncompatibleError, match=r"only the hash of its images\. Pass the same images"):
            other.compare(model)
        assert other.compare(model, probe=probe).status == "pass"
    assert other.compare(one).findings[0].mean == 1
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["b.safetensors"]


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
def test_methods_are_restored_by_name(model, tmp_path, method):
    baseline = Baseline.record(model, bars(8), method=method)
    baseline.save(tmp_path / "b")
    assert Baseline.load(tmp_path / "b").compare(model).findings[0].mean == pytest.approx(1)


def test_unregistered_method_is_incompatible(model):
    def mine(activations, gradients):
        return activations.sum(1)

    baseline = Baseline.record(model, bars(8), method=mine)
    report = baseline.compare(model)
    assert (report.status, report.exit_code) == ("incompatible", 4)
    assert "method 'mine', which is not registered" in report.reason


def test_invalid_arguments_raise(baseline, model):
    with pytest.raises(ValueError, match=r"'same-weight'\. Did you mean 'same-weights'"):
        baseline.compare(model, profile="same-weight")
    with pytest.raises(ValueError, match=r"`thresholds` to be among mean, .* but got 'q07'"):
        baseline.compare(model, thresholds={"q07": 1})
    with pytest.raises(ValueError, match="`store` to be 'images' or 'hash', but got 'no'"):
        Baseline.record(model, bars(4), store="no")
    with pytest.raises(TypeError, match="Expected `probe` to be a Probe"):
        Baseline.record(model, "images")
