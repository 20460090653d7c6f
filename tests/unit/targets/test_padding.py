"""Padding: what rises evenly still does after the crop."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam.targets.padding import crop_padding
from tests.helpers.models import assert_close


@pytest.mark.parametrize("share", [0.5, 0.7, 0.99, 1.0])
def test_crop_padding_keeps_a_linear_ramp_linear(share):
    """Linear interpolation is exact where values are linear, up to the half cell at the border."""
    evidence = (torch.arange(20.0) + 0.5).expand(1, 3, 20)
    found = crop_padding(evidence, (1.0, share))[0, 0]
    step = 20 * share / len(found)
    assert_close(found, ((torch.arange(len(found)) + 0.5) * step).clamp(0.5, 19.5), 1e-5)
