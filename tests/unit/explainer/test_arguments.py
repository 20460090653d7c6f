"""Arguments of `explain` and `Explanation.heatmaps`: every error names what was expected."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import Variant, explain
from tests.helpers.models import plain_cnn


def test_wrong_arguments_raise_error():
    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    for size in (8, (8,), (0, 4)):
        with pytest.raises(ValueError, match=r"Expected `size` of 2 positive numbers, as \(12, 12\), but got"):
            explain(model, images).heatmaps(size=size)
    for scale in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="Expected `scale` to be None or a positive number, but got"):
            explain(model, images).heatmaps(scale=scale)
    with pytest.raises(TypeError, match="Expected `flips` to be True or False, but got 'yes'"):
        explain(model, images, flips="yes")
    with pytest.raises(TypeError, match="the name of a registered method, but got <"):
        Variant(lambda activations, gradients: activations.sum(1))
    with pytest.raises(ValueError, match=r"'GradCAM'\. Did you mean 'gradcam'"):
        explain(model, images, method="GradCAM")
