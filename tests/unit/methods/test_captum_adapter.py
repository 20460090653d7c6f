"""Scores for Captum whose graph is cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam import NotExplainableError
from tests.helpers.models import plain_cnn
from tests.helpers.pixel_methods import compute_evidence


def test_cut_graph_raises():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = plain_cnn()

        def forward(self, images):
            return self.body(images.detach())

    images = torch.randn(2, 3, 12, 12)
    for name in ("saliency", "integrated_gradients", "smoothgrad", "guided_backprop"):
        with pytest.raises(NotExplainableError, match="No gradient of the score reaches the images"):
            compute_evidence(Cut(), images, name)
    assert compute_evidence(Cut(), images, "occlusion").any()
