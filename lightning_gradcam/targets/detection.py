"""Scores of detected boxes, and where in an image the places of a detector's layers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets import TARGETS, ClassScore, class_target, freeze_classes, target_name

Boxes: TypeAlias = Mapping[str, Tensor]
"""What a detector of torchvision finds in one image: ``boxes`` (m, 4), ``labels`` (m,) and ``scores`` (m,)."""


def find_boxes(output: Any) -> Sequence[Boxes] | None:
    """One `Boxes` per image in what a detector returned; None where there are none."""
    if not isinstance(output, (tuple, list)):
        return None
    if output and all(isinstance(item, Mapping) and {"boxes", "labels", "scores"} <= item.keys() for item in output):
        return output
    return next((found for item in output if (found := find_boxes(item)) is not None), None)


def as_list(model: nn.Module, probe: Probe) -> Any:
    """A ``forward=`` for models that take a list of images: ``model([image, ...])``."""
    return model(list(probe.images))


@dataclass(frozen=True)
class BoxScore:
    """The score of the best box of one class in each image.

    An image without a box of that class has the score 0, and its map says "no gradient".

    Args:
        of: ``"predicted"`` is the best box of all, ``"label"`` the best one of the probe's label ``(N,)``; or a class
            for all images, or a `ClassScore`, which has one for each.

    Example:
        >>> found = {"boxes": torch.rand(3, 4), "labels": torch.tensor([2, 1, 1])}
        >>> found["scores"] = torch.tensor([0.9, 0.5, 0.7])
        >>> probe = Probe(torch.rand(1, 3, 8, 8))
        >>> BoxScore()([found], probe), BoxScore(1)([found], probe), BoxScore(3)([found], probe)
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
        """How pictures call it."""
        return f"best box of the {target_name(self._score)}" if self._is_given else "best box"

    @property
    def _score(self) -> ClassScore:
        assert isinstance(self.of, ClassScore)
        return self.of

    @property
    def _is_given(self) -> bool:
        return self._score is not TARGETS["predicted"]

    def chosen(self, output: Any, probe: Probe) -> Tensor:
        """The classes explained, ``(n,)`` int64; of an image without a box, 0 where none was given: the background."""
        found = _boxes(output)
        if self._is_given:
            return self._score.choose(found[0]["scores"].new_zeros(len(found), 1), probe)
        best = [each["labels"][each["scores"].argmax()] if len(each["scores"]) else 0 for each in found]
        return torch.as_tensor(best, device=found[0]["scores"].device)

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """The scores, ``(n,)``."""
        found = _boxes(output)
        classes = self.chosen(output, probe) if self._is_given else [None] * len(found)
        return torch.stack([_best(each, c) for each, c in zip(found, classes, strict=True)])

    def freeze(self, output: Any, probe: Probe) -> BoxScore:
        """The classes that are chosen now, for these rows for good."""
        return BoxScore(freeze_classes(self.chosen(output, probe)))

    def select_rows(self, rows: slice | Sequence[int]) -> BoxScore:
        """The same for some rows of the probe."""
        return BoxScore(self._score.select_rows(rows))


def _best(found: Boxes, of: Tensor | None) -> Tensor:
    scores = found["scores"] if of is None else found["scores"][found["labels"] == of]
    return scores.amax() if len(scores) else found["scores"].sum() * 0  # 0 that keeps the graph


def sum_box_scores(output: Any, _probe: Probe) -> Tensor:
    """The sum of all boxes' scores, ``(n,)``: what its gradient reaches, some box depends on."""
    return torch.stack([each["scores"].sum() for each in _boxes(output)])


def score_smallest_box(output: Any, rows: Probe) -> Tensor:  # noqa: ARG001  # a target
    """The score of each image's smallest box, ``(n,)``.

    Detectors find boxes of different sizes in maps of different resolution; a map that the scores of the smallest and
    the largest one depend on lies before these branch off.
    """
    return torch.stack([_extreme(each, largest=False) for each in _boxes(output)])


def score_largest_box(output: Any, rows: Probe) -> Tensor:  # noqa: ARG001  # a target
    """The score of each image's largest box, ``(n,)``."""
    return torch.stack([_extreme(each, largest=True) for each in _boxes(output)])


def _extreme(found: Boxes, largest: bool) -> Tensor:
    if not len(found["scores"]):
        return found["scores"].sum()
    x0, y0, x1, y1 = found["boxes"].detach().unbind(1)
    areas = (x1 - x0) * (y1 - y0)
    return found["scores"][areas.argmax() if largest else areas.argmin()]


def _boxes(output: Any) -> Sequence[Boxes]:
    found = find_boxes(output)
    if found is None:
        raise NotExplainableError(
            "Expected one mapping per image with 'boxes', 'labels' and 'scores' in the model's output, but got "
            f"{type(output).__name__}. Pass `forward=`, a callable of (model, probe) that returns them."
        )
    return found
