"""What the layers of a model return, and which of them its answer depends on: a pass over the first images, traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from lightning_gradcam.capture.isolation import filled, isolated
from lightning_gradcam.capture.layer import LayerShape
from lightning_gradcam.layers.trace_hooks import trace
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import class_scores
from lightning_gradcam.targets.detection import BoxScore, largest_box, smallest_box
from lightning_gradcam.targets.embeddings import Mutual, both_sides, compares_images
from lightning_gradcam.targets.output_kind import Answer, answer_of, every_class, without_answers

TRACED_ROWS = 2
"""A trace looks at shapes and reach only; two images, since models that squeeze a batch of one exist."""


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


def common(traces: Sequence[Sequence[LayerShape]]) -> tuple[LayerShape, ...]:
    """One trace of several scores: it reaches what the first does, as far as the one that reaches least of it.

    >>> one, other = (LayerShape("a", "ReLU", (1, 4, 8, 8), (8, 8), touched=t) for t in (0.5, 0.25))
    >>> common([[one], [other]])[0].touched
    0.25
    """
    return tuple(replace(same[0], touched=min(s.touched for s in same)) for same in zip(*traces, strict=True))
