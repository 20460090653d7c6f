"""Options of SmoothGrad and integrated gradients; `test_pixels` compares them with replicas."""

from __future__ import annotations

import pytest

from lightning_gradcam.methods import IntegratedGradients, SmoothGrad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SmoothGrad(0), "`samples` of at least 1 and a positive `noise`"),
        (lambda: SmoothGrad(noise=0), "`samples` of at least 1 and a positive `noise`"),
        (lambda: IntegratedGradients(0), "`steps` of at least 1"),
    ],
)
def test_invalid_options_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
