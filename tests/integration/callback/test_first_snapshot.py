"""The first snapshot of a run: where it comes, and what `drift` and `drift_from_start` say of it."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from scipy import stats
from torch import nn

from lightning_gradcam import GradCAMCallback, explain
from tests.helpers.lit import Bars, Lit, fit, loader

IMAGES = torch.stack([Bars(8, seed=3)[i][0] for i in range(8)])
LABELS = Bars(8, seed=3).labels[:8]

BEFORE = {
    "sanity check": {},
    "given images": {"num_sanity_val_steps": 0},
    "large training batches": {"train": loader(96, 48), "val": None, "limit_val_batches": 0},
}
AFTER = {
    "no sanity check": {"num_sanity_val_steps": 0},
    "sanity check of one class": {"val": loader(36, 2, by_class=True), "num_sanity_val_steps": 1},
    "small training batches": {"train": loader(48, 6), "val": None, "limit_val_batches": 0},
}


class Weights(Callback):
    """Keeps a copy of the model where snapshots are taken: before the first step, and after each epoch."""

    def __init__(self):
        self.models = []

    def on_train_start(self, trainer, pl_module):
        self.keep(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.keep(pl_module)

    def keep(self, module):
        self.models.append({name: tensor.clone() for name, tensor in module.state_dict().items()})


def run(tmp_path, read_events, name, kwargs, caplog):
    callback = (
        GradCAMCallback(probe=(IMAGES, LABELS), curves="all")
        if name == "given images"
        else GradCAMCallback(curves="all")
    )
    kept = Weights()
    with caplog.at_level(logging.INFO):
        trainer = fit(tmp_path, [callback, kept], max_epochs=3, **kwargs)
    events = read_events(trainer.log_dir)
    curves = {
        curve: {e.step: e.value for e in events.Scalars(f"gradcam/{curve}")}
        for curve in ("drift", "drift_from_start", "degenerate")
    }
    maps = [maps_of(trainer.lightning_module, weights, callback.monitor.probe) for weights in kept.models]
    return curves, maps, caplog.text


def maps_of(module, weights, probe):
    module.load_state_dict(weights)
    return explain(module, probe, target="label").maps["features"].double().flatten(1).cpu().numpy()


def drift(before, now):
    """1 - the mean rank correlation, by SciPy."""
    return 1 - sum(stats.spearmanr(a, b).statistic for a, b in zip(before, now, strict=True)) / len(now)


@pytest.mark.parametrize("name", BEFORE)
def test_drift_counts_from_initial_weights_if_images_are_early(tmp_path, read_events, name, caplog):
    curves, maps, printed = run(tmp_path, read_events, name, BEFORE[name], caplog)
    assert list(curves["drift"].values()) == pytest.approx([drift(maps[i], maps[i + 1]) for i in range(3)], abs=1e-4)
    from_start = [drift(maps[0], maps[i + 1]) for i in range(3)]
    assert list(curves["drift_from_start"].values()) == pytest.approx(from_start, abs=1e-4)
    assert len(curves["degenerate"]) == 4
    assert "drift_from_start" not in printed


@pytest.mark.parametrize("name", AFTER)
def test_drift_begins_with_second_snapshot_if_images_are_late(tmp_path, read_events, name, caplog):
    curves, maps, printed = run(tmp_path, read_events, name, AFTER[name], caplog)
    _, *later = curves["degenerate"]
    assert list(curves["drift"]) == list(curves["drift_from_start"]) == later
    assert list(curves["drift"].values()) == pytest.approx([drift(maps[1], maps[2]), drift(maps[2], maps[3])], abs=1e-4)
    from_start = [drift(maps[1], maps[i]) for i in (2, 3)]
    assert list(curves["drift_from_start"].values()) == pytest.approx(from_start, abs=1e-4)
    assert "start: the first snapshot, in epoch 0: `drift_from_start` compares with it" in printed


class Lazy(Lit):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(3)


def test_late_start_of_a_lazy_model_names_its_cause(tmp_path, caplog):
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lazy modules|A layer with UninitializedParameter|The total")
        fit(tmp_path, [GradCAMCallback(probe=(IMAGES, LABELS))], make=Lazy, max_epochs=1, num_sanity_val_steps=0)
    assert "because the model creates parameters in its first forward pass" in caplog.text
    assert "not complete" not in caplog.text


def test_late_start_of_a_resumed_run_names_its_cause(tmp_path, caplog):
    checkpoint = tmp_path / "first.ckpt"
    fit(tmp_path, max_epochs=1).save_checkpoint(checkpoint)
    with caplog.at_level(logging.INFO):
        fit(tmp_path, [GradCAMCallback(probe=(IMAGES, LABELS))], max_epochs=2, ckpt_path=checkpoint)
    assert "in epoch 1: `drift_from_start` compares with it, because this run continues an earlier one" in caplog.text
    assert "not complete" not in caplog.text


def test_monitored_drift_is_worst_until_it_is_measured(tmp_path):
    seen = []

    class Seen(EarlyStopping):
        def on_validation_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["gradcam/drift"]))
            super().on_validation_end(trainer, pl_module)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, [GradCAMCallback(), Seen("gradcam/drift", patience=9)], max_epochs=3, num_sanity_val_steps=0)
    assert not [warning for warning in caught if "GradCAM" in str(warning.message)]
    assert seen[0] == 1
    assert all(value < 1 for value in seen[1:])
