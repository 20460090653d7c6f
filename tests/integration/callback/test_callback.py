"""A run with the callback: what it logs, and that it changes nothing else."""

from __future__ import annotations

import io
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import nn

from lightning_gradcam import GradCAMCallback, Probe, explain
from lightning_gradcam.stability import gini, spearman
from tests.helpers.lit import CLASSES, Bars, Lit, fit, loader, weights

NUMBERS = ("drift", "drift_from_start", "degenerate", "concentration", "accuracy", "confidence")


def shapes_in(state):
    """The shapes of all tensors in a checkpoint's nested containers."""
    if isinstance(state, torch.Tensor):
        return [state.shape]
    inside = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [shape for item in inside for shape in shapes_in(item)]


def steps(events, tag):
    return [e.step for e in events.Scalars(tag)]


def test_each_epoch_logs_figure_and_numbers_at_val_loss_steps(tmp_path, read_events):
    trainer = fit(tmp_path, [GradCAMCallback(curves="all")], max_epochs=3)
    events = read_events(trainer.log_dir)
    val = steps(events, "val_loss")
    assert len(val) == 3
    pictures = events.Images("gradcam/features")
    assert [p.step for p in pictures] == [0, *val]  # the first one before training
    for name in NUMBERS:
        assert [s for s in steps(events, f"gradcam/{name}") if s] == val, name
    last = Image.open(io.BytesIO(pictures[-1].encoded_image_string))
    assert last.size == (pictures[-1].width, pictures[-1].height)
    assert np.asarray(last).std() > 20  # a picture, not a blank
    assert [p.step for p in events.Images("gradcam/film")] == [val[-1]]
    [text] = events.Tensors("gradcam/choices/text_summary")
    said = text.tensor_proto.string_val[0].decode()
    assert "the last feature map" in said
    assert "8×8" in said
    assert "Bars.transform" in said


def test_numbers_equal_explain_and_metrics(tmp_path, read_events):
    callback = GradCAMCallback(curves="all")
    kept = {}

    class Keep(GradCAMCallback):
        def on_train_end(self, trainer, pl_module):
            super().on_train_end(trainer, pl_module)
            kept["model"] = pl_module

    callback = Keep(curves="all")
    looks = []

    class Record(Lit):
        def on_validation_epoch_end(self):  # runs behind the callback, with the same weights
            if not self.trainer.sanity_checking:
                looks.append(explain(self, callback.monitor.probe, target="label"))

    trainer = fit(tmp_path, [callback], make=Record, max_epochs=3)
    events = read_events(trainer.log_dir)
    labels = callback.monitor.probe.labels

    def curve(name):
        return [e.value for e in events.Scalars(f"gradcam/{name}")][-2:]

    maps = [look.maps["features"].double() for look in looks]
    drift = [1 - spearman(a, b).nanmean().item() for a, b in pairwise(maps)]
    assert curve("drift") == pytest.approx(drift, abs=1e-6)
    assert curve("concentration") == pytest.approx([gini(m).nanmean().item() for m in maps[1:]], abs=1e-6)
    assert curve("accuracy") == pytest.approx(
        [(look.logits.argmax(1) == labels).float().mean().item() for look in looks[1:]]
    )
    assert curve("confidence") == pytest.approx(
        [look.logits.softmax(1).amax(1).mean().item() for look in looks[1:]], abs=1e-6
    )
    degenerate = [np.mean([d is not None for d in look.degenerate["features"]]) for look in looks[1:]]
    assert curve("degenerate") == pytest.approx(degenerate)


def test_probe_has_all_classes_if_batches_are_sorted_and_small(tmp_path):
    callback = GradCAMCallback(probe=4)
    fit(tmp_path, [callback], val=loader(30, 2, by_class=True), max_epochs=1)
    assert callback.monitor.probe.labels.tolist() == [0, 0, 1, 2]
    assert callback.monitor.class_names == list(CLASSES)


def test_probe_stays_fixed_and_has_no_duplicates(tmp_path):
    seen = []

    class See(GradCAMCallback):
        def on_validation_epoch_end(self, trainer, pl_module):
            super().on_validation_epoch_end(trainer, pl_module)
            if self.monitor:
                seen.append(self.monitor.probe.images.clone())

    # The sanity check's two batches come again in the first validation.
    fit(tmp_path, [See(probe=9)], val=loader(9, 3, by_class=True), max_epochs=3)
    assert len(seen) == 3
    assert all(torch.equal(s, seen[0]) for s in seen)
    assert len(seen[0].flatten(1).unique(dim=0)) == 9


def test_probe_labels_match_their_images(tmp_path):
    callback = GradCAMCallback()
    fit(tmp_path, [callback], max_epochs=1)
    data = Bars(36, seed=1)
    known = {data[i][0].numpy().tobytes(): data[i][1] for i in range(36)}
    probe = callback.monitor.probe
    assert [known[image.numpy().tobytes()] for image in probe.images] == probe.labels.tolist()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kwargs", [{}, {"num_sanity_val_steps": 0}, {"val_check_interval": 0.5}, {"max_steps": 6}])
def test_monitoring_callbacks_work_from_the_first_epoch(tmp_path, every, kwargs):
    saved = ModelCheckpoint(tmp_path, monitor="gradcam/drift", save_top_k=-1)
    stopping = EarlyStopping("gradcam/drift", patience=50, check_finite=True)
    callback = GradCAMCallback(every_n_epochs=every)
    repeats = pytest.warns(UserWarning, match="patience") if every > 1 else nullcontext()
    with repeats:
        trainer = fit(tmp_path, [callback, stopping, saved], max_epochs=4, enable_checkpointing=True, **kwargs)
    assert torch.isfinite(trainer.callback_metrics["gradcam/drift"])
    assert saved.best_model_score is not None
    assert stopping.best_score < 1


def test_every_n_epochs_has_first_every_third_and_last(tmp_path, read_events):
    trainer = fit(tmp_path, [GradCAMCallback(every_n_epochs=3)], max_epochs=6)
    events = read_events(trainer.log_dir)
    val = steps(events, "val_loss")
    assert [p.step for p in events.Images("gradcam/features")] == [0, val[0], val[3], val[5]]


def test_snapshots_without_validation_end_training_epochs(tmp_path, read_events):
    class Logs(Lit):
        def training_step(self, batch, batch_idx):
            loss = self.loss(batch)
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

    trainer = fit(tmp_path, [GradCAMCallback(curves="all")], make=Logs, val=None, max_epochs=3)
    events = read_events(trainer.log_dir)
    assert [p.step for p in events.Images("gradcam/features")] == steps(events, "loss")
    assert steps(events, "gradcam/degenerate") == steps(events, "loss")
    assert steps(events, "gradcam/drift") == steps(events, "loss")[1:]  # the first has nothing to compare with


def test_final_weights_are_explained_if_max_steps_ends_the_run(tmp_path, read_events):
    callback = GradCAMCallback()
    trainer = fit(tmp_path, [callback], max_steps=6, max_epochs=-1)
    now = explain(trainer.lightning_module, callback.monitor.probe, target="label").evidence["features"]
    assert torch.equal(now, callback.monitor.figures.film.frames[-1].evidence)
    assert read_events(trainer.log_dir).Images("gradcam/features")[-1].step == 5


@pytest.mark.parametrize("save_probe", ["images", "hash"])
def test_resumed_run_equals_uninterrupted_run(tmp_path, read_events, save_probe):
    def curves(trainer):
        events = read_events(trainer.log_dir)
        return {n: {e.step: e.value for e in events.Scalars(f"gradcam/{n}")} for n in NUMBERS}

    def model():
        made = Lit()
        made.features[-1] = nn.Identity()  # dropout's random numbers are not part of a checkpoint
        return made

    train = loader(48, 12)
    whole = fit(tmp_path / "whole", [GradCAMCallback(curves="all")], make=model, train=train, max_epochs=4)
    half = GradCAMCallback(save_probe=save_probe, curves="all")
    first = fit(tmp_path / "half", [half], make=model, train=train, max_epochs=2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    state = torch.load(tmp_path / "half.ckpt", weights_only=True)  # plain types and tensors only
    assert (half.monitor.probe.images.shape in shapes_in(state["callbacks"])) == (save_probe == "images")
    resumed = GradCAMCallback(save_probe=save_probe, curves="all")
    second = fit(
        tmp_path / "half", [resumed], make=model, train=train, max_epochs=4, ckpt_path=str(tmp_path / "half.ckpt")
    )
    assert torch.equal(half.monitor.probe.images, resumed.monitor.probe.images)
    assert weights(whole) == weights(second)
    together, uninterrupted = curves(first), curves(whole)
    for name, points in curves(second).items():
        assert together[name] | points == uninterrupted[name], name
    assert [f.name for f in resumed.monitor.figures.film.frames] == [
        "start",
        "epoch 0",
        "epoch 1",
        "epoch 2",
        "epoch 3",
    ]


def test_drift_without_labels_compares_the_same_class(tmp_path, read_events):
    """A map that changes because the explained class changed is no drift."""

    class Unlabelled(Lit):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self(batch).square().mean())

    callback = GradCAMCallback()
    kept = []

    class Keep(Unlabelled):
        def on_validation_epoch_end(self):
            if not self.trainer.sanity_checking:
                probe, predicted = callback.monitor.probe, kept[-1][1] if kept else "predicted"
                held = explain(self, probe, target=predicted)
                now = explain(self, probe)
                kept.append((held, now.classes, now))

    images = torch.stack([Bars(24, seed=1)[i][0] for i in range(24)])
    val = torch.utils.data.DataLoader(images, 12)
    trainer = fit(tmp_path, [callback], make=Keep, val=val, max_epochs=3)
    assert callback.monitor.labels is None
    assert any((a[1] != b[1]).any() for a, b in pairwise(kept))  # predictions did change
    drift = [e.value for e in read_events(trainer.log_dir).Scalars("gradcam/drift")]
    for (_, _, before), (held, _, _), value in zip(kept, kept[1:], drift[1:], strict=False):
        expected = 1 - spearman(before.maps["features"], held.maps["features"]).nanmean().item()
        assert value == pytest.approx(expected, abs=1e-6)
    assert "gradcam/accuracy" not in trainer.callback_metrics


def test_several_layers_have_figures_and_curves(tmp_path, read_events):
    trainer = fit(tmp_path, [GradCAMCallback(layers=["features", "features.2"], curves="all")])
    events = read_events(trainer.log_dir)
    assert {"gradcam/features", "gradcam/features.2"} <= set(events.Tags()["images"])
    assert {"gradcam/drift", "gradcam/drift/features.2"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("logger", [CSVLogger, False])
def test_figures_become_files_without_a_logger(tmp_path, logger):
    trainer = fit(tmp_path, [GradCAMCallback()], logger=logger(tmp_path) if logger else False)
    folder = Path(trainer.logger.log_dir, "gradcam") if logger else tmp_path / "gradcam" / "version_0"
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    assert found == [
        "features/step=000000.png", "features/step=000003.png", "features/step=000007.png", "film/step=000007.png",
    ]  # fmt: skip
    assert np.asarray(Image.open(folder / found[1])).std() > 20


def test_unknown_logger_warns_once_and_gets_numbers(tmp_path):
    class Mine(Logger):
        name, version, rows = "mine", "0", []

        def log_metrics(self, metrics, step=None):
            self.rows.append(metrics)

        def log_hyperparams(self, *args, **kwargs):
            """Nothing to keep."""

    with pytest.warns(UserWarning, match="Mine has no image writer") as warned:
        fit(tmp_path, [GradCAMCallback()], logger=Mine())
    assert len([w for w in warned if "GradCAM" in str(w.message)]) == 1
    assert any("gradcam/drift" in row for row in Mine.rows)


def test_logger_subclass_uses_the_writer_of_its_base(tmp_path, read_events):
    class Mine(TensorBoardLogger):
        pass

    trainer = fit(tmp_path, [GradCAMCallback()], logger=Mine(tmp_path))
    assert "gradcam/features" in read_events(trainer.log_dir).Tags()["images"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_probe_is_explained_in_the_precision_of_the_run(tmp_path, precision):
    callback = GradCAMCallback()
    trainer = fit(tmp_path, [callback], precision=precision)
    evidence = callback.monitor.figures.film.frames[-1].evidence
    assert evidence.dtype == torch.float32
    assert trainer.callback_metrics["gradcam/degenerate"] < 0.5


def test_given_probe_is_explained(tmp_path):
    data = Bars(5, seed=3)
    images = torch.stack([data[i][0] for i in range(5)])
    callback = GradCAMCallback(probe=Probe(images, labels=data.labels))
    fit(tmp_path, [callback])
    assert torch.equal(callback.monitor.probe.images, images)
    assert callback.monitor.figures.film.frames[0].name == "start"


def test_fast_dev_run_writes_nothing(tmp_path):
    fit(tmp_path, [GradCAMCallback(probe=4)], fast_dev_run=True, logger=False)
    assert not list(tmp_path.rglob("*.png"))
