"""A trained model and its baseline."""

from __future__ import annotations

import pytest

from lightning_gradcam import Baseline
from tests.helpers.baselines import bars, trained


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def baseline(model):
    return Baseline.record(model, bars())
