"""Error for an output of another structure: every reader says what it expected and how to go on."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import NotExplainableError
from lightning_gradcam.targets import require_logits
from lightning_gradcam.targets.detection import require_boxes
from lightning_gradcam.targets.embeddings import find_embeddings
from lightning_gradcam.targets.segmentation import require_pixel_scores


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (require_logits, r"Expected logits of shape \(N, classes\)"),
        (find_embeddings, r"Expected embeddings of shape \(N, D\)"),
        (lambda output: require_pixel_scores(output, 2), r"Expected scores of shape \(N, classes, \*spatial\)"),
        (require_boxes, "Expected one mapping per image with 'boxes', 'labels' and 'scores'"),
    ],
)
def test_unsupported_output_names_the_expectation_and_the_remedy(read, expected):
    with pytest.raises(NotExplainableError, match=rf"{expected}.* got a Tensor of shape \(2, 3, 4\)\. .*`forward=`"):
        read(torch.zeros(2, 3, 4))
    with pytest.raises(NotExplainableError, match=rf"{expected}.* got a NoneType\. .*`forward=`"):
        read(None)
