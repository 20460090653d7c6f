"""Validation against the model, before training starts."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_gradcam import Baseline, GradCAMCallback
from tests.helpers.baselines import bars, trained
from tests.helpers.lit import Lit, fit, loader


@pytest.mark.parametrize("names", [["a", "b"]])
def test_class_names_are_checked_while_probe_is_incomplete(tmp_path, names):
    class Untrained(Lit):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training started")

    with pytest.raises(MisconfigurationException, match="3 class names"):
        fit(tmp_path, [GradCAMCallback(class_names=names)], make=Untrained, val=loader(36, 2, by_class=True))


def test_maps_of_other_size_than_baseline_raise_before_training(tmp_path):
    class Finer(Lit):
        def __init__(self):
            super().__init__()
            self.features[3] = torch.nn.Identity()

        def training_step(self, batch, batch_idx):
            raise AssertionError("training started")

    baseline = Baseline.record(trained(steps=1), bars(6), layers="features")
    with pytest.raises(MisconfigurationException, match=r"maps of \(8, 8\) at layer 'features'.*\(16, 16\)"):
        fit(tmp_path, [GradCAMCallback(baseline=baseline)], make=Finer)
