"""Layers that return the model's output itself, whose values are what is explained and no features.

These are the last linear layer, and what is computed from it alone: scaled, cut, resized, or between 0 and 1, its
numbers are still the output's. Norms and rectifiers end features, and so does the sum of a residual block: such an
output, of an encoder, is a feature map.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lightning_gradcam.capture.layer import IMAGES, LayerRecord
from lightning_gradcam.layers.record_graph import list_reads

LINEAR = re.compile(r"conv|linear|project", re.IGNORECASE)
"""Class names of linear layers."""

_ENDS_FEATURES = re.compile(r"(elu6?|glu|swish|silu|mish|norm(\dd)?)$", re.IGNORECASE)


def find_answers(records: Sequence[LayerRecord]) -> set[int]:
    """Find the layers that compute the numbers of the model's output, as indices.

    >>> from dataclasses import replace
    >>> reads = ({IMAGES}, {0}, {1})  # a layer, and a head that returns what its convolution computes, scaled
    >>> kinds = ("ReLU", "Conv2d", "Head")
    >>> records = [LayerRecord(k, k, (1, 5, 8, 8), (8, 8), reads=frozenset(r)) for k, r in zip(kinds, reads)]
    >>> find_answers([*records[:2], replace(records[2], is_output=True, is_scored=True)])
    {1, 2}
    """
    reads = list_reads(records)
    outputs = [i for i, record in enumerate(records) if record.is_output and record.is_scored]
    return {index for output in outputs for index in _follow_to_linear(output, records, reads)}


def _follow_to_linear(output: int, records: Sequence[LayerRecord], reads: Sequence[frozenset[int]]) -> list[int]:
    """List the steps from an output back to the linear layer from which alone it is computed; none if there is none."""
    chain = [output]
    while not LINEAR.search(kind := records[chain[-1]].kind):
        sources = reads[chain[-1]]
        if _ENDS_FEATURES.search(kind) or len(sources) != 1 or IMAGES in sources:
            return []
        [source] = sources
        if sum(source in siblings for siblings in reads) > 1:
            return []
        chain.append(source)
    return chain
