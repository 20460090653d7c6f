"""Logging of curves: monitored values, and loggers that fail."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_gradcam import FGSM, GradCAMCallback
from tests.helpers.lit import Bars, Lit, fit


def test_monitored_value_without_measurement_gets_placeholder(tmp_path):
    class Unlabelled(Lit):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self(batch).square().mean())

    images = torch.stack([Bars(24, seed=1)[i][0] for i in range(24)])
    stopping = EarlyStopping("gradcam/accuracy", mode="max", patience=9)
    with pytest.warns(UserWarning, match="`gradcam/accuracy` is monitored, but this run cannot measure it"):
        fit(tmp_path, [GradCAMCallback(), stopping], make=Unlabelled, val=torch.utils.data.DataLoader(images, 12))


def test_failing_logger_ends_nothing(tmp_path, read_events):
    class Refuses(TensorBoardLogger):
        def log_metrics(self, metrics, step=None):
            if step == 0 and any("gradcam" in name for name in metrics):
                raise OSError("no numbers")
            super().log_metrics(metrics, step)

    logger = Refuses(tmp_path)
    with pytest.warns(UserWarning, match="Numbers could not be written to Refuses .OSError: no numbers"):
        fit(tmp_path, [GradCAMCallback(curves="all")], logger=logger)
    assert len(read_events(logger.log_dir).Scalars("gradcam/drift")) == 2


def list_curves(events) -> list[str]:
    """Return the callback's curves in TensorBoard's order."""
    return sorted(tag for tag in events.Tags()["scalars"] if tag.startswith("gradcam/"))


def test_default_curves_are_few_and_drift_comes_first(tmp_path, read_events):
    trainer = fit(tmp_path, [GradCAMCallback()])
    assert list_curves(read_events(trainer.log_dir)) == [
        "gradcam/drift",
        "gradcam/drift_from_start",
        "gradcam/overhead",
    ]
    metrics = trainer.callback_metrics
    assert {f"gradcam/{name}" for name in ("degenerate", "concentration", "accuracy", "confidence")} <= metrics.keys()


def test_many_maps_add_no_default_curves(tmp_path, read_events):
    how = {"layers": ["features", "features.2"], "method": ["gradcam", "layercam"], "attack": FGSM(), "probe": 4}
    trainer = fit(tmp_path, [GradCAMCallback(**how)])
    curves = list_curves(read_events(trainer.log_dir))
    names = ("adv_accuracy", "adv_similarity", "drift", "drift_from_start", "overhead")
    assert curves == [f"gradcam/{name}" for name in names]
    every = fit(tmp_path / "all", [GradCAMCallback(**how, curves="all")])
    assert len(list_curves(read_events(every.log_dir))) > 30
    assert {name for name in trainer.callback_metrics if "gradcam" in name} == {
        name for name in every.callback_metrics if "gradcam" in name
    }


def test_monitored_curve_is_logged_too(tmp_path, read_events):
    stopping = EarlyStopping("gradcam/degenerate", patience=9)
    trainer = fit(tmp_path, [GradCAMCallback(), stopping])
    assert "gradcam/degenerate" in list_curves(read_events(trainer.log_dir))
    assert "gradcam/accuracy" not in list_curves(read_events(trainer.log_dir))


def test_layer_called_film_does_not_share_the_tag_of_the_film(tmp_path, read_events):
    class Named(Lit):
        def __init__(self):
            super().__init__()
            self.film = nn.Identity()

        def forward(self, images):
            return self.head(self.film(self.features(images)).mean((2, 3)))

    trainer = fit(tmp_path, [GradCAMCallback(layers="film")], make=Named)
    events = read_events(trainer.log_dir)
    assert set(events.Tags()["images"]) == {"gradcam/layer_film", "gradcam/film"}
    assert (len(events.Images("gradcam/layer_film")), len(events.Images("gradcam/film"))) == (3, 1)
