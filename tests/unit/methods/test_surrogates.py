"""Options of LIME and Kernel SHAP; `test_pixels` compares them with replicas."""

from __future__ import annotations

import pytest

from lightning_gradcam.methods import KernelShap, Lime


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lime(1), "`samples` of at least 2, but got 1"),
        (lambda: Lime(width=0), "a positive `width`"),
        (lambda: KernelShap(segments=0), "`segments` to be at least 1 cell"),
    ],
)
def test_invalid_options_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
