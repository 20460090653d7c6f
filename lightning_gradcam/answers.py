"""What kind of answer a model gives (scores of classes, of pixels' classes, or boxes) and what a class means in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.dense import SegmentationScore, find_pixel_scores, pixel_scores
from lightning_gradcam.detection import BoxScore, find_boxes
from lightning_gradcam.probe import Probe, Target
from lightning_gradcam.targets import ClassScore, find_logits, held_to, parts_of

Answer: TypeAlias = Literal["classes", "pixels", "boxes", "other"]


def answer_of(output: Any, probe: Probe) -> Answer:
    """What kind of answer a model's output is.

    >>> import torch
    >>> probe = Probe(torch.rand(2, 3, 8, 8))
    >>> answer_of(torch.rand(2, 5), probe), answer_of({"out": torch.rand(2, 5, 8, 8)}, probe), answer_of([], probe)
    ('classes', 'pixels', 'other')
    """
    if find_logits(output) is not None:
        return "classes"
    if find_boxes(output) is not None:
        return "boxes"
    return "other" if find_pixel_scores(output, len(probe.size)) is None else "pixels"


def suited(target: Target, answer: Answer) -> Target:
    """The target for that kind of answer: of a class, what it means there."""
    if isinstance(target, ClassScore):
        if answer == "pixels":
            return SegmentationScore(target)
        if answer == "boxes":
            return BoxScore(target)
    return target


def chosen_by(target: Target, output: Any, probe: Probe) -> Tensor | None:
    """What a target chooses to explain, see `ClassScore`; None where it is not of a class."""
    return target.chosen(output, probe) if isinstance(target, (ClassScore, SegmentationScore, BoxScore)) else None


def region_of(target: Target, output: Any, probe: Probe) -> Tensor | None:
    """The pixels whose scores a target sums up, at the images' size; None where it is of no pixels."""
    if not isinstance(target, SegmentationScore):
        return None
    region = target.region(output, probe)
    return F.interpolate(region[:, None].float(), size=probe.size, mode="nearest-exact")[:, 0] > 0


def held_as(target: Target, explained: Mapping[str, Tensor]) -> Target:
    """As `targets.held_to`, in the sense that a class has in this kind of answer."""
    if isinstance(target, SegmentationScore) and explained:
        return target.held_to(explained[""])
    held = held_to(target, explained)
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
    scores = [suited(part, "pixels") for part in parts_of(target).values()]
    of_pixels = [score for score in scores if isinstance(score, SegmentationScore)]
    for score in of_pixels:
        score.check(count, probe)
    return count if of_pixels else None
