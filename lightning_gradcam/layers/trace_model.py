"""Trace of a model: what its layers return for the first images, and which of them reach the score."""

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
"""Number of images in a trace, which needs shapes and gradients only; two, since some models squeeze a batch of one."""


def trace_model(
    model: nn.Module, probe: Probe, forward: Forward, target: Target
) -> tuple[tuple[LayerRecord, ...], Any, Answer]:
    """Trace the model on the first images.

    Returns:
        What the layers return and which of them reach the score, the model's output, and its kind.
    """
    compares_pairs = compares_images(target, probe)
    score = MutualTarget(target) if compares_pairs else target

    def trace(images: Probe) -> tuple[tuple[LayerRecord, ...], Any, Answer]:
        return _trace_images(model, stack_pairs(images) if compares_pairs else images, forward, score)

    if len(probe) > 1:
        return trace(probe[:TRACED_ROWS])
    doubled = probe[[0, 0]]  # a tensor with one row, such as a table of positions, may not belong to the image
    try:
        return trace(doubled)
    except Exception:  # the model, or the target, works for one image only
        return trace(probe)


def _trace_images(
    model: nn.Module, images: Probe, forward: Forward, target: Target
) -> tuple[tuple[LayerRecord, ...], Any, Answer]:
    # The sum of all classes shows what the gradient reaches: a label may be out of range, which is checked later.
    scores_class = bool(list_class_scores(target)) or isinstance(target, BoxScore)
    score = sum_logits if scores_class else target
    with isolated(model), fill_zero_parameters(model):
        records, output = run_traced(model, images, forward, lambda output: score(output, images))
        output_kind = find_output_kind(output, images)
        if output_kind == "boxes" and scores_class:
            smallest, _ = run_traced(model, images, forward, lambda output: score_smallest_box(output, images))
            largest, _ = run_traced(model, images, forward, lambda output: score_largest_box(output, images))
            records = merge_traces([records, smallest, largest])
    return mark_outputs(records, output, images), output, output_kind


def merge_traces(traces: Sequence[Sequence[LayerRecord]]) -> tuple[LayerRecord, ...]:
    """Merge traces of several scores into the first one, with the smallest reach of all at every layer.

    >>> trace, smaller_reach = ([LayerRecord("a", "ReLU", (1, 4, 8, 8), (8, 8), touched=t)] for t in (0.5, 0.25))
    >>> merge_traces([trace, smaller_reach])[0].touched
    0.25
    """
    return tuple(replace(calls[0], touched=min(r.touched for r in calls)) for calls in zip(*traces, strict=True))
