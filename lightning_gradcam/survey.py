"""What the layers of a model return, and which of them its answer depends on: a pass over the first images, traced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.answers import Answer, answer_of
from lightning_gradcam.capture import trace
from lightning_gradcam.dense import find_pixel_scores
from lightning_gradcam.detection import BoxScore, every_box, find_boxes, largest_box, smallest_box
from lightning_gradcam.isolation import filled, isolated
from lightning_gradcam.probe import Forward, Probe, Target
from lightning_gradcam.targets import class_scores, find_logits, logits_of
from lightning_gradcam.targets.embeddings import Mutual, both_sides, compares_images
from lightning_gradcam.trace import LayerShape

TRACED_ROWS = 2
"""A trace looks at shapes and reach only; two images, since models that squeeze a batch of one exist."""

_NO_ANSWER = re.compile(r"(elu6?|glu|swish|silu|mish|tanh|norm(\dd)?)$", re.IGNORECASE)


def traced(
    model: nn.Module, probe: Probe, forward: Forward, target: Target
) -> tuple[tuple[LayerShape, ...], Any, Answer]:
    """What the model's layers return for the first images and which of them reach the score, and the model's output."""
    single = len(probe) == 1
    pairs = compares_images(target, probe)
    rows = probe[[0, 0]] if single else probe[:TRACED_ROWS]  # what has one row may be no feature of the one image
    try:
        return _traced(model, both_sides(rows) if pairs else rows, forward, Mutual(target) if pairs else target)
    except Exception:
        if not single:
            raise
        rows = both_sides(probe) if pairs else probe  # the model, or the target, is made for one image
        return _traced(model, rows, forward, Mutual(target) if pairs else target)


def _traced(
    model: nn.Module, rows: Probe, forward: Forward, target: Target
) -> tuple[tuple[LayerShape, ...], Any, Answer]:
    # All classes show what the gradient reaches: a label may be out of range, which is checked later.
    of_class = bool(class_scores(target)) or isinstance(target, BoxScore)
    score = every_class if of_class else target
    with isolated(model), filled(model):
        shapes, output = trace(model, rows, forward, lambda output: score(output, rows))
        answer = answer_of(output, rows)
        if answer == "boxes" and of_class:
            small, _ = trace(model, rows, forward, lambda output: smallest_box(output, rows))
            large, _ = trace(model, rows, forward, lambda output: largest_box(output, rows))
            shapes = common([shapes, small, large])
    return without_answers(shapes, output, rows), output, answer


def every_class(output: Any, probe: Probe) -> Tensor:
    """All classes at once: what the gradient reaches may be a ReLU that is off for one of them.

    Weighted, since the plain sum of probabilities has no gradient.
    """
    if find_boxes(output) is not None:
        return every_box(output, probe)
    pixels = None if find_logits(output) is not None else find_pixel_scores(output, len(probe.size))
    logits = logits_of(output) if pixels is None else pixels.flatten(2).sum(2)
    return logits @ torch.linspace(1, 2, logits.shape[1], device=logits.device, dtype=logits.dtype)


def common(traces: Sequence[Sequence[LayerShape]]) -> tuple[LayerShape, ...]:
    """One trace of several scores: it reaches what the first does, as far as the one that reaches least of it.

    >>> one, other = (LayerShape("a", "ReLU", (1, 4, 8, 8), (8, 8), touched=t) for t in (0.5, 0.25))
    >>> common([[one], [other]])[0].touched
    0.25
    """
    return tuple(replace(same[0], touched=min(s.touched for s in same)) for same in zip(*traces, strict=True))


def without_answers(shapes: Sequence[LayerShape], output: Any, probe: Probe) -> tuple[LayerShape, ...]:
    """Mark the maps at the end that are the scores of the pixels' classes themselves: those have nothing to explain.

    Going back from the end, these have as many channels as there are classes, and were made by no activation or
    normalisation, behind which a classifier follows.
    """
    scores = find_pixel_scores(output, len(probe.size)) if find_logits(output) is None else None
    if scores is None:
        return tuple(shapes)
    counts, marked = {scores.shape[1], *([1] if scores.shape[1] == 2 else [])}, list(shapes)
    for i, shape in reversed(list(enumerate(shapes))):
        if shape.reaches and shape.cells > 1:
            if shape.shape[1] not in counts or _NO_ANSWER.search(shape.kind):
                break
            marked[i] = replace(shape, answers=True)
    return tuple(marked)
