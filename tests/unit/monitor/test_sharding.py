"""The explainer in chunks."""

from __future__ import annotations

import pytest

from lightning_gradcam import GradCAMCallback
from tests.helpers.lit import fit


@pytest.mark.parametrize("chunk", [1, 5, 16, 99])
def test_chunked_snapshot_has_equal_numbers_and_no_warning(tmp_path, chunk):
    whole, parts = GradCAMCallback(), GradCAMCallback(chunk=chunk)
    for callback in (whole, parts):
        fit(tmp_path, [callback], max_epochs=1)
    assert parts.monitor.sharded_explainer.memory_warning == ""
    for name, value in whole.monitor.tracker.last.items():
        assert float(parts.monitor.tracker.last[name]) == pytest.approx(float(value), abs=1e-4)
