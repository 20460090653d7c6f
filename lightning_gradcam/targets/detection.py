"""Scores of the boxes that a detector returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.classes import ClassScore, ClassTarget, class_target, freeze_classes
from lightning_gradcam.targets.registry import TARGETS, target_name
from lightning_gradcam.targets.unsupported import unsupported_output

Boxes: TypeAlias = Mapping[str, Tensor]
"""Boxes that a torchvision detector returns for one image: ``boxes`` (m, 4), ``labels`` (m,) and ``scores`` (m,)."""


def find_boxes(output: Any) -> Sequence[Boxes] | None:
    """Return one `Boxes` per image from a detector's output; None if there are none."""
    if not isinstance(output, (tuple, list)):
        return None
    if output and all(isinstance(item, Mapping) and {"boxes", "labels", "scores"} <= item.keys() for item in output):
        return output
    return next((boxes for item in output if (boxes := find_boxes(item)) is not None), None)


def require_boxes(output: Any) -> Sequence[Boxes]:
    """Return one `Boxes` per image from a detector's output.

    Raises:
        NotExplainableError: The output has no boxes.
    """
    boxes = find_boxes(output)
    if boxes is None:
        raise unsupported_output(
            "Expected one mapping per image with 'boxes', 'labels' and 'scores' in the model's output", output
        )
    return boxes


def as_list(model: nn.Module, probe: Probe) -> Any:
    """Call a model that takes a list of images: ``model([image, ...])``; for ``forward=``."""
    return model(list(probe.images))


@dataclass(frozen=True)
class BoxScore(ClassTarget):
    """Score of the best box of one class in each image.

    An image without a box of that class has the score 0, and its map says "no gradient".

    Args:
        of: ``"predicted"`` for the best box of all classes, ``"label"`` for the best box of the probe's label ``(N,)``;
            or a class for all images, or a `ClassScore` with one class per image.

    Example:
        >>> boxes = {"boxes": torch.rand(3, 4), "labels": torch.tensor([2, 1, 1])}
        >>> boxes["scores"] = torch.tensor([0.9, 0.5, 0.7])
        >>> probe = Probe(torch.rand(1, 3, 8, 8))
        >>> BoxScore()([boxes], probe), BoxScore(1)([boxes], probe), BoxScore(3)([boxes], probe)
        (tensor([0.9000]), tensor([0.7000]), tensor([0.]))
    """

    of: Literal["predicted", "label"] | int | ClassScore = "predicted"

    def __post_init__(self) -> None:
        if isinstance(self.of, str):
            score = TARGETS.resolve(self.of)
            if not isinstance(score, ClassScore):
                raise ValueError(f"Expected `of` to be 'predicted', 'label' or a class, but got {self.of!r}.")
            object.__setattr__(self, "of", score)
        elif not isinstance(self.of, ClassScore):
            object.__setattr__(self, "of", class_target(self.of))

    @property
    def name(self) -> str:
        """Name in figures."""
        return f"best box of the {target_name(self._score)}" if self._has_class else "best box"

    @property
    def _score(self) -> ClassScore:
        assert isinstance(self.of, ClassScore)
        return self.of

    @property
    def _has_class(self) -> bool:
        """Whether the class does not depend on the boxes."""
        return self._score is not TARGETS["predicted"]

    def select_classes(self, output: Any, probe: Probe) -> Tensor:
        """Select the classes, ``(n,)`` int64; for the best box of an image without boxes, 0, the background."""
        detections = require_boxes(output)
        scores = detections[0]["scores"]
        if self._has_class:
            return self._score.choose(scores.new_zeros(len(detections), 1), probe)
        classes = [boxes["labels"][boxes["scores"].argmax()] if len(boxes["scores"]) else 0 for boxes in detections]
        return torch.as_tensor(classes, device=scores.device)

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``."""
        return torch.stack([_score_best_box(boxes, c) for boxes, c in self._pair_with_classes(output, probe)])

    def find_scored(self, output: Any, probe: Probe) -> tuple[tuple[int, ...], ...]:
        """Return the numbers of the best box in each image: of several if they are equal, of none if there is none."""
        return tuple(_find_best_boxes(boxes, c) for boxes, c in self._pair_with_classes(output, probe))

    def _pair_with_classes(self, output: Any, probe: Probe) -> list[tuple[Boxes, Tensor | None]]:
        """Return each image's boxes with the class to explain, which is None for all classes."""
        detections = require_boxes(output)
        classes = self.select_classes(output, probe) if self._has_class else [None] * len(detections)
        return list(zip(detections, classes, strict=True))

    def freeze_to(self, classes: Tensor) -> BoxScore:
        """Return the score of the best box of ``classes``, as selected for N images."""
        return BoxScore(freeze_classes(classes))

    def select_rows(self, rows: slice | Sequence[int]) -> BoxScore:
        """Return the target for some images of the probe."""
        return BoxScore(self._score.select_rows(rows))


def _score_best_box(boxes: Boxes, of: Tensor | None) -> Tensor:
    """Return the largest score of one class, or of all classes if it is None."""
    scores = boxes["scores"] if of is None else boxes["scores"][boxes["labels"] == of]
    return scores.amax() if len(scores) else boxes["scores"].sum() * 0  # a 0 that is part of the graph


def _find_best_boxes(boxes: Boxes, of: Tensor | None) -> tuple[int, ...]:
    """Return the numbers of all boxes that `_score_best_box` depends on."""
    scores = boxes["scores"].detach()
    candidates = torch.arange(len(scores), device=scores.device)
    if of is not None:
        candidates = candidates[boxes["labels"] == of]
    if not len(candidates):
        return ()
    is_worse = scores[candidates] < scores[candidates].amax()  # no box if one is NaN: all get a gradient of NaN
    return tuple(candidates[~is_worse].tolist())


def sum_box_scores(output: Any, _probe: Probe) -> Tensor:
    """Sum the scores of all boxes, ``(n,)``: some box depends on whatever the sum's gradient reaches."""
    return torch.stack([boxes["scores"].sum() for boxes in require_boxes(output)])


def score_smallest_box(output: Any, _probe: Probe) -> Tensor:
    """Return the score of each image's smallest box, ``(n,)``.

    Detectors find boxes of different sizes in maps of different resolution. A map that the scores of both the smallest
    and the largest box depend on lies before these branch off.
    """
    return torch.stack([_score_extreme_box(boxes, is_largest=False) for boxes in require_boxes(output)])


def score_largest_box(output: Any, _probe: Probe) -> Tensor:
    """Return the score of each image's largest box, ``(n,)``."""
    return torch.stack([_score_extreme_box(boxes, is_largest=True) for boxes in require_boxes(output)])


def _score_extreme_box(boxes: Boxes, is_largest: bool) -> Tensor:
    """Return the score of the box with the largest or smallest area."""
    if not len(boxes["scores"]):
        return boxes["scores"].sum()
    x0, y0, x1, y1 = boxes["boxes"].detach().unbind(1)
    areas = (x1 - x0) * (y1 - y0)
    return boxes["scores"][areas.argmax() if is_largest else areas.argmin()]
