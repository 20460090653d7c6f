"""A patience that is counted in repeated values of a curve is told once, with the patience that it takes."""

from __future__ import annotations

import warnings

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_gradcam import GradCAMCallback
from tests.helpers.lit import Lit, fit


class Plateau(Lit):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=4)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "gradcam/drift"}}


def collect(tmp_path, callbacks, **kwargs) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, callbacks, **kwargs)
    return [text for text in (str(warning.message) for warning in caught) if "patience" in text]


def test_patience_on_a_repeated_curve_is_told_once(tmp_path):
    stopping = EarlyStopping("gradcam/drift", mode="max", patience=3)
    [text] = collect(tmp_path, [GradCAMCallback(every_n_epochs=2), stopping], max_epochs=2)
    assert "EarlyStopping monitors 'gradcam/drift', which has a new value every 2 epochs" in text
    assert "`patience=3` waits for 1 new value. Pass `patience=6` to wait for 3" in text


def test_told_patience_waits_for_as_many_new_values(tmp_path):
    def count_snapshots(patience: int) -> int:
        # No value can be better than the first, so that the patience is used up by what follows it.
        stopping = EarlyStopping("gradcam/drift", mode="max", patience=patience, min_delta=9)
        callback = GradCAMCallback(every_n_epochs=2)
        collect(tmp_path, [callback, stopping], max_epochs=40, make=lambda: Lit(), num_sanity_val_steps=0)
        return stopping.stopped_epoch // 2  # epochs 2, 4, ... have the new values

    assert [count_snapshots(patience) for patience in (1, 3, 6)] == [0, 1, 3]


@pytest.mark.parametrize(
    ("every", "make", "stopping", "kwargs"),
    [
        (1, Lit, EarlyStopping("gradcam/drift"), {}),
        (2, Lit, EarlyStopping("train_loss", strict=False), {}),
        (2, Lit, EarlyStopping("other/drift", strict=False), {}),
        (2, Lit, ModelCheckpoint(monitor="gradcam/drift"), {"enable_checkpointing": True}),
        (2, Lit, EarlyStopping("gradcam/drift"), {"check_val_every_n_epoch": 2}),
    ],
)
def test_patience_of_as_many_values_is_not_mentioned(every, make, stopping, kwargs, tmp_path):
    assert not collect(tmp_path, [GradCAMCallback(every_n_epochs=every), stopping], make=make, max_epochs=1, **kwargs)


def test_patience_of_a_scheduler_is_told_too(tmp_path):
    [text] = collect(tmp_path, [GradCAMCallback(every_n_epochs=3)], make=Plateau, max_epochs=1)
    assert "ReduceLROnPlateau monitors 'gradcam/drift'" in text
    assert "`patience=4` waits for 1 new value. Pass `patience=12`" in text


def test_patience_at_the_end_of_training_epochs_counts_each_of_them(tmp_path):
    stopping = EarlyStopping("gradcam/drift", patience=1, check_on_train_epoch_end=True)
    callback = GradCAMCallback(every_n_epochs=2, tag="mine/cam")
    stopping.monitor = "mine/cam/drift"
    [text] = collect(tmp_path, [callback, stopping], max_epochs=1, check_val_every_n_epoch=2)
    assert "waits for no new values. Pass `patience=2`" in text
