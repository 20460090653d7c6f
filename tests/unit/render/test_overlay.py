"""The public overlay of a heatmap on one image."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image
from torch import nn

from lightning_gradcam import overlay
from tests.helpers.images import BYTES, forms
from tests.helpers.models import examples
from tests.helpers.overlay_replica import blend


def slow_overlay(array, heat, alpha, colormap):
    """Pixel by pixel, in float64."""
    drawn = np.zeros((*heat.shape, 3))
    for y, x in np.ndindex(heat.shape):
        gray = float(array[y, x] @ np.array([0.299, 0.587, 0.114])) / 255
        drawn[y, x] = blend(int(gray * 255 + 0.5) / 255, int(heat[y, x] * 255 + 0.5), colormap, alpha)
    return drawn


@cache
def cache_overlay(alpha):
    return slow_overlay(BYTES, np.random.default_rng(1).integers(0, 9, (20, 28)) / 8, alpha, "viridis")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("form", ["uint8 array", "float array", "PIL", "file", "uint8 tensor", "float tensor"])
def test_overlay_equals_slow_replica_for_every_image_type(form, alpha, tmp_path):
    heat = np.random.default_rng(1).integers(0, 9, (20, 28)) / 8  # few levels: the replica is slow
    expected = cache_overlay(alpha)
    image = forms(tmp_path)[form]
    drawn = overlay(image, heat, alpha=alpha, colormap="viridis")
    if isinstance(image, torch.Tensor):
        assert isinstance(drawn, torch.Tensor)
        drawn = drawn.permute(1, 2, 0).numpy()
    assert drawn.dtype == np.uint8
    # Half a byte of rounding, and the 512th part of the chroma by which the replica may miss the most.
    assert np.abs(drawn - expected).max() <= 1.51
    as_pil = overlay(image, torch.from_numpy(heat), alpha, "viridis", as_pil=True)
    assert isinstance(as_pil, Image.Image)
    assert np.array_equal(np.asarray(as_pil), drawn)


@examples(30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
def test_overlay_without_evidence_is_the_gray_photo(height, width, level):
    array = np.full((7, 11, 3), level, np.uint8)
    drawn = overlay(array, np.zeros((height, width)))
    assert np.abs(drawn - blend(level / 255, 0, "inferno")).max() <= 0.51


def test_overlay_resizes_small_heatmap():
    small, image = torch.rand(3, 4), torch.rand(3, 12, 16)
    enlarged = nn.functional.interpolate(small[None, None], (12, 16), mode="bilinear")[0, 0]
    assert torch.equal(overlay(image, small), overlay(image, enlarged))


@pytest.mark.parametrize(("arguments", "error", "said"), [
    ((BYTES, np.full((2, 2), 1.5)), ValueError, r"`heatmap` in \[0, 1\].*1\.5"),
    ((BYTES, np.zeros((1, 2, 2))), ValueError, r"`heatmap` of shape \(h, w\), for one image"),
    ((BYTES, [[0.0]]), TypeError, "tensor or an array, but got list"),
    ((BYTES, np.zeros((2, 2)), 2.0), ValueError, "`alpha` from 0 to 1"),
    ((BYTES, np.zeros((2, 2)), 0.5, "infernal"), ValueError, "matplotlib colormap.*Did you mean 'inferno'"),
    ((torch.rand(1, 3, 4, 4), np.zeros((2, 2))), ValueError, "one image"),
    ((torch.randn(3, 4, 4), np.zeros((2, 2))), ValueError, r"pixels in \[0, 1\]"),
])  # fmt: skip
def test_overlay_raises_for_invalid_arguments(arguments, error, said):
    with pytest.raises(error, match=said):
        overlay(*arguments)
