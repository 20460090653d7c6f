"""Sudden drift is noticed when it lasts two looks, and only then; a baseline is watched while a model trains."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, strategies as st
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_gradcam import Baseline, GradCAMCallback, Normalization, explain
from lightning_gradcam.attacks import restore_pixels
from lightning_gradcam.stability import spearman
from lightning_gradcam.stability.alarm import DEVIATIONS, LEAST, LEAST_DEVIATION, WINDOW, DriftAlarm
from tests.helpers.lit import Lit, fit, weights
from tests.helpers.models import examples
from tests.unit.baseline.test_baseline import bars, trained


def plain(series):
    """Which looks are noticed, by the definition."""
    found, start = [], 0
    for t in range(len(series)):
        usual = series[max(start, t - WINDOW) : max(t - 1, start)]
        if len(usual) < LEAST:
            continue
        middle = statistics.median(usual)
        spread = max(statistics.median([abs(u - middle) for u in usual]), LEAST_DEVIATION)
        if max(series[t], series[t - 1]) < middle - DEVIATIONS * spread:
            found.append(t)
            start = t + 1  # from here on, something else may be usual
    return found


@examples(200)
@given(st.lists(st.sampled_from([0.1, 0.5, 0.8, 0.85, 0.9, 0.95, 1.0]), max_size=25))
def test_notices_what_the_definition_says(series):
    alarm = DriftAlarm()
    noticed = [t for t, value in enumerate(series) if alarm.update("maps", torch.tensor([value], dtype=torch.float64))]
    assert noticed == plain(series)


def test_one_bad_look_is_none_and_two_are_named_with_their_images():
    alarm = DriftAlarm()
    for mean in (0.9, 0.92, 0.91, 0.9, 0.93, 0.2, 0.91, 0.9, 0.2):
        assert not alarm.update("maps", torch.full((4,), mean))
    said = alarm.update("maps", torch.tensor([0.5, 0.1, torch.nan, 0.3]))
    assert "mean similarity 0.30, after 0.20; the usual value is 0.91; least similar images: 1, 3, 0" in said
    resumed = DriftAlarm()
    resumed.load_state_dict(alarm.state_dict())
    assert resumed == alarm
    assert not alarm.update("maps", torch.full((4,), torch.nan))


class Shuffles(Callback):
    """Gives the head another order of channels from some epoch on."""

    def on_validation_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch >= 8 and not trainer.sanity_checking:
            with torch.no_grad():
                weight = pl_module.head.weight
                weight.copy_(weight[:, torch.randperm(weight.shape[1])])


def test_a_run_is_warned_of_what_changes_suddenly(tmp_path):
    class Slow(Lit):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    said = r"epoch 9 · step \d+: the maps of layer 'features' suddenly differ from the previous snapshot's"
    with pytest.warns(UserWarning, match=said) as caught:
        fit(tmp_path, [Shuffles(), GradCAMCallback(every_n_epochs=1)], make=Slow, max_epochs=11)
    assert len([w for w in caught if "suddenly differ" in str(w.message)]) == 1
    fit(tmp_path, [GradCAMCallback()], make=Slow, max_epochs=11)  # where nothing happens, nothing is said


def test_a_baseline_is_watched_while_a_model_trains(tmp_path):
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


def test_images_of_a_baseline_are_normalised_as_this_run_does_it(tmp_path):
    callback = GradCAMCallback(
        baseline=Baseline.record(trained(steps=1), bars(6)), pixels=Normalization((0.5,), (0.5,))
    )
    fit(tmp_path, [callback], max_epochs=1)
    assert torch.allclose(callback.monitor.probe.images, (restore_pixels(bars(6)) - 0.5) / 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "hash"}, r"only the hash of its images\. Pass the same images .*or record the baseline"),
        ({"baseline": "missing.safetensors"}, "cannot be read: No such file"),
        (
            {"baseline": "images", "probe": (torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))},
            "`probe` cannot be combined with `baseline`",
        ),
        ({"baseline": "images", "layers": "features.2"}, "`layers` cannot be combined with `baseline`"),
        ({"baseline": "images", "method": "layercam"}, "`method` cannot be combined with `baseline`"),
    ],
)
def test_what_does_not_go_with_a_baseline_is_named_in_setup(tmp_path, arguments, message):
    class Untrained(Lit):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training started")

    if arguments["baseline"] in ("hash", "images"):
        arguments = {**arguments, "baseline": Baseline.record(trained(steps=1), bars(6), store=arguments["baseline"])}
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, [GradCAMCallback(**arguments)], make=Untrained)


def test_a_model_with_other_maps_is_named_before_training(tmp_path):
    class Finer(Lit):
        def __init__(self):
            super().__init__()
            self.features[3] = torch.nn.Identity()

        def training_step(self, batch, batch_idx):
            raise AssertionError("training started")

    baseline = Baseline.record(trained(steps=1), bars(6), layers="features")
    with pytest.raises(MisconfigurationException, match=r"maps of \(8, 8\) at layer 'features'.*\(16, 16\)"):
        fit(tmp_path, [GradCAMCallback(baseline=baseline)], make=Finer)
