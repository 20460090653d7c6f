"""Trace of a model: what its layers return for the first images, and which of them its score depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_gradcam.capture.isolation import fill_zero_parameters, isolated
from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.layers.checks import check_initialized
from lightning_gradcam.layers.dependence import connect_changed
from lightning_gradcam.layers.trace_hooks import run_traced
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import list_class_scores
from lightning_gradcam.targets.detection import BoxScore
from lightning_gradcam.targets.embeddings import MutualTarget, compares_images, stack_pairs
from lightning_gradcam.targets.output_kinds import OutputClues, OutputKind, find_output_kind
from lightning_gradcam.targets.output_kinds.clues import read_clues
from lightning_gradcam.targets.output_kinds.decide import OutputReading
from lightning_gradcam.targets.output_kinds.model_clues import find_unused_classifiers
from lightning_gradcam.targets.output_kinds.parts import describe_output

TRACED_IMAGES = 2
"""Number of images in a trace, which reads shapes and reach only; two, since some models squeeze a batch of one."""


class ModelTrace(NamedTuple):
    """Result of a traced pass.

    Args:
        records: What each layer returned, in order of execution, and whether the score depends on it.
        output: What the model returned.
        output_kind: The kind of the output.
        reading: What the kind was decided from.
        num_images: Number of traced images.
    """

    records: tuple[LayerRecord, ...]
    output: Any
    output_kind: OutputKind
    reading: OutputReading
    num_images: int


def trace_model(
    model: nn.Module, probe: Probe, forward: Forward, target: Target, clues: OutputClues | None = None
) -> ModelTrace:
    """Trace the model on the first images; a single image is doubled, unless the model takes only one.

    A model that fails on two images may take batches of one size only, such as one with a queue: it is traced on all.

    Args:
        model: The model.
        probe: All images.
        forward: Calls the model.
        target: The score.
        clues: What is known about the output; by default what the model and the probe's labels say.
    """
    clues = read_clues(model, probe, target) if clues is None else clues
    if len(probe) > 1:
        try:
            return _trace(model, probe[:TRACED_IMAGES], forward, target, clues)
        except ForwardError as error:
            if len(probe) == TRACED_IMAGES:
                raise
            try:
                return _trace(model, probe, forward, target, clues)
            except ForwardError:
                raise error from error.__cause__  # not a matter of the number of images
    try:
        # A tensor of one row may not belong to the one image.
        return _trace(model, probe[[0, 0]], forward, target, clues)
    except Exception:
        return _trace(model, probe, forward, target, clues)  # the model, or the target, takes one image only


def _trace(model: nn.Module, images: Probe, forward: Forward, target: Target, clues: OutputClues) -> ModelTrace:
    """Trace the model on these images."""
    if compares_images(target, images):
        images, target = stack_pairs(images), MutualTarget(target)
    # For classes, the trace's score includes all of them. A label that is out of range raises later.
    explains_class = bool(list_class_scores(target)) or isinstance(target, BoxScore)

    def score(output: Any, probe: Probe) -> Tensor:
        return find_output_kind(output, probe, clues).trace_score(output, probe)

    @contextmanager
    def isolate() -> Iterator[None]:
        with isolated(model), fill_zero_parameters(model):
            yield

    with isolate():
        initialized = {name for name, _ in model.named_parameters()}
        records, output = _run(model, images, forward, score if explains_class else target)
        check_initialized(model, [name for name, _ in model.named_parameters() if name not in initialized])
        used = {name for record in records for name in (record.name, *record.inner)}
        parts = describe_output(output, images).with_makers(records, model)
        reading = OutputReading(parts, replace(clues, classifiers=find_unused_classifiers(model, used)))
        kind = reading.decide(images).for_model(model, images)
        if explains_class and kind.refining_scores:
            refined = [_run(model, images, forward, refining_score)[0] for refining_score in kind.refining_scores]
            records = merge_traces([records, *refined])

    records = connect_changed(records, model, images, forward, isolate)
    return ModelTrace(kind.mark_outputs(records, output, images), output, kind, reading, len(images))


def _run(model: nn.Module, images: Probe, forward: Forward, score: Target) -> tuple[tuple[LayerRecord, ...], Any]:
    """Run one traced pass and return its records and the output."""

    def score_output(output: Any) -> Tensor:
        return score(output, images)

    try:
        return run_traced(model, images, forward, score_output)
    except ForwardError as error:
        if "requires grad" not in str(error):
            raise
        return run_traced(model, images, forward, score_output, needs_grad=False)


def merge_traces(traces: Sequence[Sequence[LayerRecord]]) -> tuple[LayerRecord, ...]:
    """Merge the traces of several scores: the first one's records, with the smallest reach of all.

    >>> first, second = (LayerRecord("a", "ReLU", (1, 4, 8, 8), (8, 8), touched=t) for t in (0.5, 0.25))
    >>> merge_traces([[first], [second]])[0].touched
    0.25
    """
    return tuple(
        replace(records[0], touched=min(record.touched for record in records)) for records in zip(*traces, strict=True)
    )
