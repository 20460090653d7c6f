"""Similarity to a baseline in the curves of a run."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_gradcam import Baseline, GradCAMCallback, explain
from lightning_gradcam.stability import spearman
from tests.helpers.baselines import bars, trained
from tests.helpers.lit import fit, weights


def test_baseline_similarity_is_logged_during_training(tmp_path):
    model = trained()
    baseline = Baseline.record(model, bars(), layers=["features", "features.2"])
    baseline.save(tmp_path / "b.safetensors")
    callback = GradCAMCallback(baseline=str(tmp_path / "b.safetensors"))
    stopping = EarlyStopping("gradcam/baseline_similarity", mode="max", patience=9)
    best = ModelCheckpoint(tmp_path / "best", monitor="gradcam/baseline_similarity", mode="max")
    trainer = fit(tmp_path, [callback, stopping, best], model=trained().train(), enable_checkpointing=True)
    assert weights(trainer) == weights(fit(tmp_path, model=trained().train()))
    now = explain(trainer.lightning_module, bars(), layers=["features", "features.2"], target="label")
    for layer, suffix in (("features", ""), ("features.2", "/features.2")):
        expected = spearman(now.maps[layer], baseline.explanation.maps[layer]).nanmean()
        found = trainer.callback_metrics[f"gradcam/baseline_similarity{suffix}"]
        assert float(found) == pytest.approx(float(expected), abs=1e-5)
    assert torch.allclose(callback.monitor.probe.images, bars().images, atol=1e-5)
    assert best.best_model_score is not None
    first = GradCAMCallback(baseline=baseline)
    started = fit(tmp_path, [first], model=trained().train(), max_epochs=1)
    assert 0 < float(started.callback_metrics["gradcam/baseline_similarity"]) < 1
