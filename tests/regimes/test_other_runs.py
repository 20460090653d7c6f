"""Other runs: each leaves the user's numbers unchanged and logs what callbacks monitor."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningDataModule, callbacks
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lightning_gradcam import GradCAMCallback, explain
from lightning_gradcam.loggers import WRITERS
from tests.helpers.lit import CLASSES, Bars, Lit, fit, loader
from tests.helpers.recorder import flat


class Plateau(Lit):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "gradcam/drift"}}


@pytest.mark.parametrize("kwargs", [{}, {"check_val_every_n_epoch": 3}])
def test_scheduler_on_drift_works_before_probe_is_complete(tmp_path, kwargs):
    val = loader(36, 2, by_class=True)  # the sanity check shows one class only
    trainer = fit(tmp_path, [GradCAMCallback()], make=Plateau, val=val, max_epochs=4, **kwargs)
    assert torch.isfinite(trainer.callback_metrics["gradcam/drift"])


def test_early_stopping_without_any_validation(tmp_path):
    stopping = EarlyStopping("gradcam/drift", check_on_train_epoch_end=True)
    with pytest.warns(UserWarning, match="no batch was seen"):
        trainer = fit(tmp_path, [GradCAMCallback(), stopping], make=Plateau, max_steps=3, num_sanity_val_steps=0)
    assert trainer.callback_metrics["gradcam/drift"] == 1


def test_checkpoint_of_test_does_not_reach_next_fit(tmp_path):
    callback = GradCAMCallback()
    trainer = fit(tmp_path, [callback])
    before = callback.monitor.probe.images.clone()
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    class Tested(Lit):
        def test_step(self, batch, batch_idx):
            self.log("test_loss", self.loss(batch))

    trainer.test(Tested(), loader(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    fit(tmp_path, [callback], val=loader(36, 12, seed=5))
    assert not torch.equal(callback.monitor.probe.images, before)


def test_failing_logger_loses_only_its_figures(tmp_path, monkeypatch, read_events):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setitem(WRITERS, "TensorBoardLogger", full)
    with pytest.warns(UserWarning, match="could not be written to TensorBoardLogger .OSError: No space") as caught:
        trainer = fit(tmp_path, [GradCAMCallback()])
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
    assert len(read_events(trainer.log_dir).Scalars("gradcam/drift")) == 2


class Data(LightningDataModule):
    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(36, seed=1)


def test_colors_and_names_found_for_given_probe_and_resume(tmp_path):
    data = Bars(6, seed=3)
    images = torch.stack([data[i][0] for i in range(6)])
    first = GradCAMCallback(probe=(images, data.labels))
    trainer = fit(tmp_path, [first])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed = GradCAMCallback(probe=(images, data.labels))
    fit(tmp_path, [resumed], max_epochs=3, ckpt_path=str(tmp_path / "a.ckpt"))
    for callback in (first, resumed):
        assert callback.monitor.class_names == list(CLASSES)
        assert torch.allclose(callback.monitor.figures.photos, data.pixels[:6], atol=1e-5)


def test_resume_with_another_layer_warns_and_starts_over(tmp_path):
    trainer = fit(tmp_path, [GradCAMCallback()])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    callback = GradCAMCallback(layers="features.2")
    with pytest.warns(UserWarning, match="curves start over"):
        fit(tmp_path, [callback], max_epochs=4, ckpt_path=str(tmp_path / "a.ckpt"))
    assert [f.name for f in callback.monitor.figures.film.frames] == ["epoch 2", "epoch 3"]


def test_resume_on_other_images_warns_and_starts_over(tmp_path):
    trainer = fit(tmp_path, [GradCAMCallback(save_probe="hash")])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    callback = GradCAMCallback(save_probe="hash")
    with pytest.warns(UserWarning, match="curves start over"):
        resumed = fit(
            tmp_path, [callback], val=loader(36, 12, seed=9), max_epochs=4, ckpt_path=str(tmp_path / "a.ckpt")
        )
    assert [f.name for f in callback.monitor.figures.film.frames] == ["epoch 2", "epoch 3"]
    assert resumed.callback_metrics["gradcam/drift_from_start"] < 1


def test_run_resumed_twice_keeps_pending_state(tmp_path):
    """A checkpoint between a resume and the next snapshot has the state of the previous one."""
    trainer = fit(tmp_path, [GradCAMCallback(save_probe="hash")])
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    class Saves(Lit):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 0 and self.current_epoch == 2:
                self.trainer.save_checkpoint(tmp_path / "b.ckpt")

    again = {"val": loader(36, 12, seed=1), "max_epochs": 4}
    fit(tmp_path, [GradCAMCallback(save_probe="hash")], make=Saves, ckpt_path=str(tmp_path / "a.ckpt"), **again)
    one, other = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["callbacks"] for name in "ab")
    assert flat(one) == flat(other)
    validated = []

    class Validates(Lit):
        def on_validation_epoch_end(self):
            validated.append(f"epoch {self.current_epoch}")

    callback = GradCAMCallback(save_probe="hash")
    fit(tmp_path, [callback], make=Validates, ckpt_path=str(tmp_path / "b.ckpt"), **again)
    assert [f.name for f in callback.monitor.figures.film.frames] == ["start", "epoch 0", "epoch 1", *validated]
    # Lightning 2.4 validates once more when it resumes within an epoch.
    assert validated[-2:] == ["epoch 2", "epoch 3"]


def test_checkpoint_stores_hash_of_large_probe_and_warns(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_gradcam.callback.probe_state.LIMIT", 16 * 3 * 16 * 16 * 4 - 1)
    callback = GradCAMCallback()
    with pytest.warns(UserWarning, match="The probe takes 0 MiB, so checkpoints store its hash"):
        fit(tmp_path, [callback])
    assert callback.state_dict()["probe"] is None
    assert len(pickle.dumps(callback.state_dict())) < 100_000


def test_late_validation_still_fills_the_probe(tmp_path):
    callback = GradCAMCallback()
    fit(tmp_path, [callback], num_sanity_val_steps=0, check_val_every_n_epoch=2, max_epochs=4)
    known = {Bars(36, seed=1)[i][0].numpy().tobytes() for i in range(36)}
    assert {image.numpy().tobytes() for image in callback.monitor.probe.images} <= known
    assert callback._controller.session.summarize()["probe"].endswith("from validation batches")


def test_steps_that_take_an_iterator(tmp_path):
    class Iterated(Lit):
        def validation_step(self, dataloader_iter):
            batch, _, _ = next(dataloader_iter)
            self.log("val_loss", self.loss(batch), batch_size=12)

    callback = GradCAMCallback(probe=6)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dataloader_iter")
        fit(tmp_path, [callback], make=Iterated)
    assert callback.monitor is not None
    assert callback.monitor.labels is not None


def test_first_training_batch_allows_initial_snapshot(tmp_path):
    callback = GradCAMCallback(probe=9)
    untrained = {}

    class Before(Lit):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 0 and not untrained:
                untrained.update(explain(self, callback.monitor.probe, target="label").evidence)

    fit(tmp_path, [callback], make=Before, val=None)
    assert callback.monitor.figures.film.frames[0].name == "start"
    assert torch.equal(callback.monitor.figures.film.frames[0].evidence, untrained["features"])


def test_epoch_of_one_batch_without_validation_has_snapshot(tmp_path):
    callback = GradCAMCallback(probe=9)
    fit(tmp_path, [callback], val=None, limit_train_batches=1)
    assert [f.name for f in callback.monitor.figures.film.frames] == ["start", "epoch 0", "epoch 1"]


class Binary(Lit):
    def __init__(self, sigmoid=False):
        super().__init__(classes=1)
        self.sigmoid = sigmoid

    def forward(self, images):
        logit = super().forward(images)[:, 0]
        return logit.sigmoid() if self.sigmoid else logit

    def loss(self, batch):
        probability = self(batch[0]) if self.sigmoid else self(batch[0]).sigmoid()
        return nn.functional.binary_cross_entropy(probability, (batch[1] > 0).float())


class TwoClasses(Bars):
    classes = ("no", "yes")

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, torch.tensor(float(label > 0))


@pytest.mark.parametrize("sigmoid", [False, True])
def test_binary_model_with_one_output(tmp_path, sigmoid):
    callback = GradCAMCallback()
    model = Binary(sigmoid)
    trainer = fit(tmp_path, [callback], model=model, val=DataLoader(TwoClasses(36, seed=1), 12), max_epochs=4)
    probe = callback.monitor.probe
    with torch.no_grad():
        model.eval()
        positive = model(probe.images) > (0.5 if sigmoid else 0)
    expected = (positive.long() == probe.labels).float().mean()
    assert trainer.callback_metrics["gradcam/accuracy"] == expected
    assert set(probe.labels.tolist()) == {0, 1}


def test_shared_scale_spans_all_snapshots_of_a_layer(tmp_path):
    callback = GradCAMCallback(layers=["features", "features.2"], scale="shared")
    fit(tmp_path, [callback], max_epochs=3)
    largest = max(f.evidence.max() for f in callback.monitor.figures.film.frames)
    assert callback.monitor.figures.get_scale("features") == largest
    assert callback.monitor.figures.get_scale("features.2") != largest


def test_no_message_lost_if_training_ends_with_partial_probe(tmp_path):
    callback = GradCAMCallback()
    fit(tmp_path, [callback], max_steps=2, max_epochs=-1, val=loader(36, 2, by_class=True), check_val_every_n_epoch=5)
    assert [f.name for f in callback.monitor.figures.film.frames] == ["end"]


def test_callback_pickles_without_the_model(tmp_path):
    callback = GradCAMCallback(tag="mine", probe=7)
    fit(tmp_path, [callback])
    pickled = pickle.dumps(callback)
    assert len(pickled) < 10_000
    again = pickle.loads(pickled)
    assert repr(again) == "GradCAMCallback(probe=7, tag='mine')"
    fit(tmp_path, [again])
    assert len(again.monitor.probe) == 7


def test_profiler_lists_snapshots_by_name(tmp_path):
    trainer = fit(tmp_path, [GradCAMCallback()], profiler="simple")
    durations = trainer.profiler.recorded_durations
    assert len(durations["[GradCAMCallback]gradcam.snapshot"]) == 3
    assert "[Callback]GradCAMCallback{'tag': 'gradcam'}.on_validation_epoch_end" in durations


@pytest.mark.skipif(not hasattr(callbacks, "WeightAveraging"), reason="this Lightning has no WeightAveraging yet")
@pytest.mark.parametrize("first", [True, False])
def test_summary_names_weights_explained_under_averaging(tmp_path, first):
    callback, averaging, kept = GradCAMCallback(), callbacks.WeightAveraging(), {}

    class Keep(Lit):
        def on_validation_epoch_end(self):  # behind all callbacks, so the trained weights are back
            if not self.trainer.sanity_checking:
                average = averaging._average_model.module
                kept.update(trained=explain(self, callback.monitor.probe, target="label").evidence["features"])
                kept.update(average=explain(average, callback.monitor.probe, target="label").evidence["features"])

    fit(tmp_path, [callback, averaging] if first else [averaging, callback], make=Keep)
    explained = callback.monitor.figures.film.frames[-1].evidence
    assert torch.equal(explained, kept["average" if first else "trained"])
    assert not torch.equal(*kept.values())
    said = callback._controller.session.summarize()["weights"]
    assert said.startswith("after validations the average of WeightAveraging" if first else "the training weights")


@pytest.mark.slow
def test_ddp_ranks_agree_and_weights_are_unchanged(tmp_path):
    def run(name, callbacks):
        saved = ModelCheckpoint(tmp_path / name, monitor="gradcam/drift" if callbacks else None, filename="end")
        more = [EarlyStopping("gradcam/drift", patience=9)] if callbacks else []
        fit(
            tmp_path / name, [*callbacks, saved, *more], max_epochs=2, enable_checkpointing=True, devices=2,
            strategy="ddp_spawn", use_distributed_sampler=True,
        )  # fmt: skip
        [path] = Path(tmp_path / name).glob("*.ckpt")
        return torch.load(path, weights_only=True)["state_dict"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert flat(run("with", [GradCAMCallback(every_n_epochs=9)])) == flat(run("without", []))
    assert list((tmp_path / "with").rglob("events*"))


def test_barebones_has_no_warning_about_our_log(tmp_path):
    class Quiet(Lit):
        def validation_step(self, batch, batch_idx):
            self.loss(batch)

    callback = GradCAMCallback()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, [callback], make=Quiet, barebones=True, logger=None, log_every_n_steps=None)
    assert callback.monitor.tracker.snapshots == 2
    assert not [w for w in caught if "self.log" in str(w.message)]
