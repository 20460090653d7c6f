"""Lightning comes in two packages, `pytorch_lightning` and `lightning`: Trainers and checkpoints of both are served."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_gradcam import GradCAMCallback
from tests.helpers.lit import Body, fit, weights

NAMES = ("pytorch_lightning", "lightning.pytorch")


def package_of(name):
    """One package, a model of its own kind, and what `fit` takes to run it there."""
    root = import_module(name)
    lit = type("Lit", (Body, root.LightningModule), {})
    return SimpleNamespace(name=name, root=root, Lit=lit, run={"make": lit, "trainer_class": root.Trainer})


@pytest.fixture(params=NAMES)
def package(request):
    return package_of(request.param)


def test_the_packages_share_no_class():
    one, other = map(package_of, NAMES)
    for name in ("Trainer", "LightningModule", "Callback"):
        assert not issubclass(getattr(one.root, name), getattr(other.root, name))


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "list"])
def test_pictures_and_curves_and_weights_as_without(package, bare, tmp_path, read_events):
    callback = GradCAMCallback()
    trainer = fit(tmp_path / "with", callback if bare else [callback], **package.run)
    assert callback in trainer.callbacks
    events = read_events(trainer.log_dir)
    val = [e.step for e in events.Scalars("val_loss")]
    assert [p.step for p in events.Images("gradcam/features")] == [0, *val]
    assert [e.step for e in events.Scalars("gradcam/drift")] == val
    assert weights(trainer) == weights(fit(tmp_path / "without", **package.run))


@pytest.mark.parametrize("then", NAMES)
def test_a_checkpoint_of_either_is_resumed_by_either(package, then, tmp_path):
    first, resumed = GradCAMCallback(), GradCAMCallback()
    saves = {"enable_checkpointing": True, "logger": False}
    trainer = fit(tmp_path, first, max_epochs=1, **saves, **package.run)
    path = trainer.checkpoint_callback.best_model_path
    assert torch.load(path, weights_only=True)["callbacks"][first.state_key]["version"] == 2
    fit(tmp_path, [resumed], max_epochs=2, ckpt_path=path, **saves, **package_of(then).run)
    assert torch.equal(first.monitor.probe.images, resumed.monitor.probe.images)
    assert [f.name for f in resumed.monitor.figures.film.frames] == ["start", "epoch 0", "epoch 1"]


def test_the_profiler_names_the_hooks(package, tmp_path):
    trainer = fit(tmp_path, GradCAMCallback(tag="mine"), profiler="simple", **package.run)
    report = trainer.profiler.summary()
    for hook in ("on_train_start", "on_validation_batch_start", "on_validation_epoch_end", "on_train_end"):
        assert f"[Callback]GradCAMCallback{{'tag': 'mine'}}.{hook}" in report


def test_pytorch_lightning_alone_is_enough(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
sys.modules["lightning"] = None  # as if it were not installed
from pathlib import Path
from tests.helpers.lit import fit
from lightning_gradcam import GradCAMCallback
callback = GradCAMCallback()
fit(Path({str(tmp_path)!r}), callback, max_epochs=1, logger=False)
print(callback.monitor.tracker.snapshots)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "2"


def test_what_is_wrong_is_either_packages_error(package):
    fabric = package.name.replace("pytorch_lightning", "lightning_fabric").replace(
        "lightning.pytorch", "lightning.fabric"
    )
    with pytest.raises(
        import_module(f"{fabric}.utilities.exceptions").MisconfigurationException, match="at least 1 image"
    ):
        GradCAMCallback(probe=0)
