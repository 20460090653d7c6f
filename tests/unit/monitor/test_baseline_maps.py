"""Similarity to a baseline during training."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import explain
from lightning_gradcam.monitor.baseline_maps import BaselineMaps
from lightning_gradcam.stability import spearman
from tests.helpers.baselines import bars, trained


def test_baseline_maps_measure_the_layers_they_know():
    model, probe = trained(steps=1), bars(6)
    explanation = explain(model, probe, layers=["features", "features.2"], target="label")
    baseline = BaselineMaps({"features.2": explanation.maps["features.2"].flip(0)})
    numbers = baseline.measure(explanation)
    values = spearman(explanation.maps["features.2"].flip(0), explanation.maps["features.2"])
    assert torch.equal(baseline.similarities["features.2"], values)
    assert {name: float(value) for name, value in numbers.items()} == {
        "baseline_similarity/features.2": pytest.approx(float(values.nanmean()))
    }
