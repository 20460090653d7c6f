"""What kind of answer a model gives (scores of classes, of pixels' classes, or boxes) and what a class means in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets import (
    ClassScore,
    are_probabilities,
    find_logits,
    freeze_target,
    list_class_scores,
    require_logits,
    split_target,
)
from lightning_gradcam.targets.detection import BoxScore, find_boxes, sum_box_scores
from lightning_gradcam.targets.segmentation import SegmentationScore, find_pixel_scores, pixel_scores

Answer: TypeAlias = Literal["classes", "pixels", "boxes", "other"]


def find_output_kind(output: Any, probe: Probe) -> Answer:
    """What kind of answer a model's output is.

    >>> import torch
    >>> probe = Probe(torch.rand(2, 3, 8, 8))
    >>> [find_output_kind(output, probe) for output in (torch.rand(2, 5), {"out": torch.rand(2, 5, 8, 8)}, [])]
    ['classes', 'pixels', 'other']
    """
    if find_logits(output) is not None:
        return "classes"
    if find_boxes(output) is not None:
        return "boxes"
    return "other" if find_pixel_scores(output, len(probe.size)) is None else "pixels"


def adapt_target(target: Target, answer: Answer) -> Target:
    """The target for that kind of answer: of a class, what it means there."""
    if isinstance(target, ClassScore):
        if answer == "pixels":
            return SegmentationScore(target)
        if answer == "boxes":
            return BoxScore(target)
    return target


def find_choice(target: Target, output: Any, probe: Probe) -> Tensor | None:
    """What a target chooses to explain, see `ClassScore`; None where it is not of a class."""
    return target.chosen(output, probe) if isinstance(target, (ClassScore, SegmentationScore, BoxScore)) else None


def find_region(target: Target, output: Any, probe: Probe) -> Tensor | None:
    """The pixels whose scores a target sums up, at the images' size; None where it is of no pixels."""
    if not isinstance(target, SegmentationScore):
        return None
    region = target.region(output, probe)
    return F.interpolate(region[:, None].float(), size=probe.size, mode="nearest-exact")[:, 0] > 0


def freeze_target_as(target: Target, explained: Mapping[str, Tensor]) -> Target:
    """As `targets.freeze_target`, in the sense that a class has in this kind of answer."""
    if isinstance(target, SegmentationScore) and explained:
        return target.freeze_to(explained[""])
    held = freeze_target(target, explained)
    return BoxScore(held) if isinstance(target, BoxScore) and isinstance(held, ClassScore) else held


def check_pixels(target: Target, output: Any, probe: Probe) -> int | None:
    """How many classes pixels have, where a target is one of them; a ValueError where it is not among these.

    (Waits for the device.)

    Args:
        target: As it was asked for.
        output: What the model returned for a few images.
        probe: All images.
    """
    count = pixel_scores(output, len(probe.size)).shape[1]
    scores = [adapt_target(part, "pixels") for part in split_target(target).values()]
    of_pixels = [score for score in scores if isinstance(score, SegmentationScore)]
    for score in of_pixels:
        score.check(count, probe)
    return count if of_pixels else None


OF_PROBABILITIES = (
    "The model puts out probabilities, and the scores that they were made of are not known: the gradient of a "
    "probability is explained, which is near zero where the model is sure, and mixes in all other classes. Return the "
    "scores before the last softmax, or pass `forward=`, a callable of (model, probe) that does."
)


def _checked(target: Target, probe: Probe, logits: Tensor | None) -> str:
    """Raise a ValueError where classes are not the model's; else a remark on what its logits turn out to be."""
    scores = list_class_scores(target)
    if logits is None or not scores:
        return ""
    for score in scores:
        score.check(logits.new_zeros(len(probe), logits.shape[1]), probe)
    return OF_PROBABILITIES if are_probabilities(logits) else ""


_NO_ANSWER = re.compile(r"(elu6?|glu|swish|silu|mish|tanh|norm(\dd)?)$", re.IGNORECASE)


def sum_logits(output: Any, probe: Probe) -> Tensor:
    """All classes at once: what the gradient reaches may be a ReLU that is off for one of them.

    Weighted, since the plain sum of probabilities has no gradient.
    """
    if find_boxes(output) is not None:
        return sum_box_scores(output, probe)
    pixels = None if find_logits(output) is not None else find_pixel_scores(output, len(probe.size))
    logits = require_logits(output) if pixels is None else pixels.flatten(2).sum(2)
    return logits @ torch.linspace(1, 2, logits.shape[1], device=logits.device, dtype=logits.dtype)


def mark_outputs(shapes: Sequence[LayerRecord], output: Any, probe: Probe) -> tuple[LayerRecord, ...]:
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
