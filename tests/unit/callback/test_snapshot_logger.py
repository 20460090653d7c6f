"""Logging of curves: monitored values, and loggers that fail."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_gradcam import GradCAMCallback
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
        fit(tmp_path, [GradCAMCallback()], logger=logger)
    assert len(read_events(logger.log_dir).Scalars("gradcam/drift")) == 2
