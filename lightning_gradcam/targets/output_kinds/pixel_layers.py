"""The layers that return a dense output itself, which have nothing to explain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.segmentation import find_pixel_scores

_NO_CLASSIFIER = re.compile(r"(elu6?|glu|swish|silu|mish|tanh|norm(\dd)?)$", re.IGNORECASE)
"""Class names of activations and normalizations."""


def mark_pixel_layers(records: Sequence[LayerRecord], output: Any, probe: Probe) -> tuple[LayerRecord, ...]:
    """Mark the last layers with a channel per channel of the output, back to the last activation or normalization.

    The last convolution follows an activation or a normalization, so these do not return the output.
    """
    scores = find_pixel_scores(output, len(probe.size))
    if scores is None:
        return tuple(records)
    count = scores.shape[1]
    channels, marked = {count, *([1] if count == 2 else [])}, list(records)
    for i, record in reversed(list(enumerate(records))):
        if record.reaches and record.cells > 1:
            if record.shape[1] not in channels or _NO_CLASSIFIER.search(record.kind):
                break
            marked[i] = replace(record, answers=True)
    return tuple(marked)
