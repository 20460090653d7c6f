"""Every regime trains twice, with and without the callback, bit for bit the same."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch

from lightning_gradcam.loggers import WRITERS
from tests.helpers.recorder import Notebook, difference
from tests.regimes import REGIMES, Run


@pytest.fixture(autouse=True)
def _reset_switches(monkeypatch):
    """Reset the process-wide switches that Trainers set, and give the tests' logger an image writer."""
    monkeypatch.setitem(WRITERS, "Notebook", Notebook.keep_picture)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.mha.set_fastpath_enabled(True)  # else a row that fails here lets the next one pass
    torch.compiler.reset()


def rows():
    for row in REGIMES.values():
        marks = [pytest.mark.slow] if row.slow else []
        marks += [pytest.mark.skip(reason=row.skip)] if row.skip else []
        yield pytest.param(row, id=row.name, marks=marks)


@pytest.mark.parametrize("regime", list(rows()))
def test_training_is_never_disturbed(tmp_path, regime):
    with warnings.catch_warnings():
        if regime.tolerates:
            warnings.filterwarnings("ignore", message=regime.tolerates)
        without = Run(regime, tmp_path, watched=False)
        shutil.rmtree(tmp_path)  # paths are compared, too
        watched = Run(regime, tmp_path, watched=True)
    parted = difference(without.recorder, watched.recorder)
    assert not parted, parted
    assert watched.results == without.results
    assert watched.looks == [regime.looks] * len(regime.tags)
    assert watched.pictures >= regime.looks or "fast_dev_run" in regime.trainer
