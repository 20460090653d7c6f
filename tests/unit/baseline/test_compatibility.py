"""Candidates that cannot be compared with a baseline."""

from __future__ import annotations

import pytest
from torch import nn

from lightning_gradcam import Baseline, Probe
from lightning_gradcam.attacks import restore_pixels
from lightning_gradcam.baseline.data import serialize
from tests.helpers.baselines import NORM, bars, encode_file, record_small
from tests.helpers.lit import Lit
from tests.helpers.models import TinyVGG


def test_decoder_noise_passes_and_other_images_are_incompatible(baseline, model):
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
def test_incomparable_candidates_are_incompatible(baseline, model, other, message):
    report = baseline.compare(other(model))
    assert (report.status, report.findings) == ("incompatible", ())
    assert message.replace("6.%", "") in report.reason


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), "'features'"),
        (lambda: TinyVGG(classes=2), "classes from 0 to 1"),
        (lambda: Lit(classes=1), "classes from 0 to 1"),
    ],
)
def test_inexplicable_candidate_is_incompatible(baseline, candidate, message):
    report = baseline.compare(candidate())
    assert report.status == "incompatible"
    assert message in report.reason


def test_nan_images_are_incompatible(tmp_path):
    original = record_small()
    tensors, about = serialize(original)
    path = tmp_path / "b.safetensors"
    path.write_bytes(encode_file({**tensors, "images": tensors["images"] * float("nan")}, about))
    assert original.compare(Baseline.load(path)).status == "incompatible"
