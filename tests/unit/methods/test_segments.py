"""Segmentation of images by user functions."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import explain
from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.methods import KernelShap, Lime
from tests.helpers.models import perturbed, plain_cnn


def test_custom_segmentation():
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)

    def stripes(image):
        return (10 + 2 * torch.arange(12).div(3, rounding_mode="floor"))[None, :, None].expand(1, 12, 12)

    evidence = explain(model, images, method=KernelShap(40, stripes), target=0).evidence[PIXELS]
    assert (evidence == evidence[:, ::3].repeat_interleave(3, 1)[:, :, :1]).all()
    assert evidence[0].unique().numel() == 4
    with pytest.raises(
        ValueError, match=r"`segments` to return integers of shape \(1, 12, 12\), but got torch.float32"
    ):
        explain(model, images, method=Lime(10, lambda image: image[:, 0]))
