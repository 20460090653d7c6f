"""Windows of occlusion; `test_pixels` compares it with its replica."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import explain
from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.methods import Occlusion
from tests.helpers.models import perturbed, plain_cnn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Occlusion(0), "`window` to be None, or one or more pixels, but got 0"),
        (lambda: Occlusion(3, (1, 0)), r"`stride` to be None, or one or more pixels, but got \(1, 0\)"),
        (lambda: Occlusion(fill="grey"), "`fill` to be 'mean' or a number, but got 'grey'"),
    ],
)
def test_invalid_options_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_window_must_fit_the_images():
    with pytest.raises(ValueError, match=r"`window` of one or 2 numbers for images of \(12, 12\), but got \(3,\)"):
        explain(plain_cnn(), torch.randn(1, 3, 12, 12), method=Occlusion((3,)))
    evidence = explain(perturbed(plain_cnn()), torch.randn(1, 3, 12, 12), method=Occlusion(99, 99)).evidence[PIXELS]
    assert evidence.unique().numel() == 1  # one window, as large as the image
