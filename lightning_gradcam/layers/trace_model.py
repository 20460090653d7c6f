"""What the layers of a model return, and which of them its answer depends on: a pass over the first images, traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from lightning_gradcam.capture.isolation import fill_zero_parameters, isolated
from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.layers.trace_hooks import run_traced
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import list_class_scores
from lightning_gradcam.targets.detection import BoxScore, score_largest_box, score_smallest_box
from lightning_gradcam.targets.embeddings import MutualTarget, compares_images, stack_pairs
from lightning_gradcam.targets.output_kind import Answer, find_output_kind, mark_outputs, sum_logits

TRACED_ROWS = 2
"""A trace looks at shapes and reach only; two images, since models that squeeze a batch of one exist."""


def trace_model(
    model: nn.Module, probe: Probe, forward: Forward, target: Target
) -> tuple[tuple[LayerRecord, ...], Any, Answer]:
    """What the model's layers return for the first images and which of them reach the score, and the model's output."""
    single = len(probe) == 1
    pairs = compares_images(target, probe)
    rows = probe[[0, 0]] if single else probe[:TRACED_ROWS]  # what has one row may be no feature of the one image
    try:
        return _traced(model, stack_pairs(rows) if pairs else rows, forward, MutualTarget(target) if pairs else target)
    except Exception:
        if not single:
            raise
        rows = stack_pairs(probe) if pairs else probe  # the model, or the target, is made for one image
        return _traced(model, rows, forward, MutualTarget(target) if pairs else target)


def _traced(
    model: nn.Module, rows: Probe, forward: Forward, target: Target
) -> tuple[tuple[LayerRecord, ...], Any, Answer]:
    # All classes show what the gradient reaches: a label may be out of range, which is checked later.
    of_class = bool(list_class_scores(target)) or isinstance(target, BoxScore)
    score = sum_logits if of_class else target
    with isolated(model), fill_zero_parameters(model):
        shapes, output = run_traced(model, rows, forward, lambda output: score(output, rows))
        answer = find_output_kind(output, rows)
        if answer == "boxes" and of_class:
            small, _ = run_traced(model, rows, forward, lambda output: score_smallest_box(output, rows))
            large, _ = run_traced(model, rows, forward, lambda output: score_largest_box(output, rows))
            shapes = merge_traces([shapes, small, large])
    return mark_outputs(shapes, output, rows), output, answer


def merge_traces(traces: Sequence[Sequence[LayerRecord]]) -> tuple[LayerRecord, ...]:
    """One trace of several scores: it reaches what the first does, as far as the one that reaches least of it.

    >>> one, other = (LayerRecord("a", "ReLU", (1, 4, 8, 8), (8, 8), touched=t) for t in (0.5, 0.25))
    >>> merge_traces([[one], [other]])[0].touched
    0.25
    """
    return tuple(replace(same[0], touched=min(s.touched for s in same)) for same in zip(*traces, strict=True))
