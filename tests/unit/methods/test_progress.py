"""Progress bars of methods."""

from __future__ import annotations

import torch

from lightning_gradcam import ScoreCAM, explain
from tests.helpers.models import plain_cnn


def test_progress_bar_appears_on_terminals_only(capsys, monkeypatch):
    monkeypatch.setattr("lightning_gradcam.methods.gradient_free.PROGRESS_DELAY", 0.0)
    model, images = plain_cnn().eval(), torch.randn(1, 3, 12, 12)
    explain(model, images, layers="5", method=ScoreCAM(chunk=2), target=1)
    assert not capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    explain(model, images, layers="5", method=ScoreCAM(chunk=2), target=1)
    assert "scorecam" in capsys.readouterr().err
