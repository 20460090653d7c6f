"""Composite targets: several scores, each explained separately, from one forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import (
    Against,
    ClassScore,
    NthLabel,
    Ranked,
    class_target,
    freeze_classes,
    label,
    predicted,
)


def _check_count(k: object) -> None:
    """Raise a ValueError unless ``k`` is a positive integer."""
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"Expected `k` of at least 1 class, but got {k!r}.")


class _Composite(ABC):
    """Base of targets with several scores; subclasses define `parts`."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, ClassScore]:
        """The scores, by the suffix of their keys; "" for a single score, whose keys have no suffix."""

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores of all parts, ``(n, parts)``; of a single part, ``(n,)``."""
        scores = [score(output, probe) for score in self.parts.values()]
        return torch.stack(scores, 1) if len(scores) > 1 else scores[0]

    def freeze(self, output: Any, probe: Probe) -> Parts:
        """Return the target that always explains the classes selected for this output."""
        return Parts({name: score.freeze_to(score.select_classes(output, probe)) for name, score in self.parts.items()})

    def select_rows(self, rows: slice | Sequence[int]) -> Parts:
        """Return the target for some images of the probe."""
        return Parts({name: score.select_rows(rows) for name, score in self.parts.items()})


@dataclass(frozen=True)
class Parts(_Composite):
    """Several scores, each explained separately.

    Args:
        scores: The scores, by the suffix of the explanation's keys.
        name: Name of all of them in figures.
    """

    scores: Mapping[str, ClassScore]
    name: str = "held classes"

    @property
    def parts(self) -> Mapping[str, ClassScore]:
        """The scores."""
        return self.scores


@dataclass(frozen=True)
class TopK(_Composite):
    """The classes with the largest scores, each explained separately: one forward pass, ``k`` backward passes.

    The backward passes run through the head only. Keys of the explanation end in ``/top 1``, ``/top 2``, ...;
    `Explanation.explained` holds the classes of each image.

    Args:
        k: Number of classes; at most as many as the model has.

    Raises:
        ValueError: ``k`` is under 1.

    >>> list(TopK(2).parts)
    ['top 1', 'top 2']
    """

    k: int = 3

    def __post_init__(self) -> None:
        _check_count(self.k)

    @property
    def name(self) -> str:
        """Name in figures."""
        return f"{self.k} best classes, each"

    @cached_property
    def parts(self) -> Mapping[str, ClassScore]:
        """One score per rank."""
        return {f"top {n + 1}": ClassScore(Ranked(n), f"class of rank {n + 1}", is_dynamic=True) for n in range(self.k)}


@dataclass(frozen=True)
class EachLabel(_Composite):
    """The classes of multi-label labels, each explained separately, in ascending order.

    Keys of the explanation end in ``/label 1``, ``/label 2``, ... The map of an image with fewer labels says "no
    label".

    Args:
        k: Largest number of labels.

    Raises:
        ValueError: ``k`` is under 1.
    """

    k: int = 3

    def __post_init__(self) -> None:
        _check_count(self.k)

    @property
    def name(self) -> str:
        """Name in figures."""
        return "label" if self.k == 1 else "labels, each"

    @cached_property
    def parts(self) -> Mapping[str, ClassScore]:
        """One score per label."""
        return {f"label {n + 1}": ClassScore(NthLabel(n), f"label {n + 1}") for n in range(self.k)}


@dataclass(frozen=True)
class Margin(_Composite):
    """Score of a class minus the score of the best other class: the evidence that tells both apart.

    Args:
        of: ``"predicted"`` for the best class against the second best; ``"label"``; or a class.

    Raises:
        TypeError: ``of`` is of another type.
        ValueError: ``of`` is another name, or negative.

    >>> Margin(of=0)(torch.tensor([[5.0, 1.0, 3.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([2.])
    """

    of: int | str = "predicted"

    def __post_init__(self) -> None:
        if isinstance(self.of, str) and self.of not in _CHOICES:
            raise ValueError(f"Expected `of` to be 'predicted', 'label' or a class, but got {self.of!r}.")
        if not isinstance(self.of, str):
            class_target(self.of)

    @property
    def name(self) -> str:
        """Name in figures."""
        names = {"predicted": "best class against the second best", "label": "label against the best other class"}
        return names.get(str(self.of), f"class {self.of} against the best other one")

    @cached_property
    def parts(self) -> Mapping[str, ClassScore]:
        """The single score."""
        choose = _CHOICES[self.of] if isinstance(self.of, str) else class_target(self.of).choose
        return {"": ClassScore(Against(choose), self.name, is_dynamic=True)}


_CHOICES = {"predicted": predicted, "label": label}


def split_target(target: Target) -> Mapping[str, Target]:
    """Split a target into the scores that are explained separately, by the suffix of their keys; "" for a single one.

    >>> list(split_target(TopK(2))), list(split_target(lambda output, probe: output[:, 0]))
    (['top 1', 'top 2'], [''])
    """
    return getattr(target, "parts", None) or {"": target}


def list_class_scores(target: Target) -> list[ClassScore]:
    """List the class scores of a target; empty if it has other scores."""
    scores = list(split_target(target).values())
    return [score for score in scores if isinstance(score, ClassScore)] if isinstance(scores[0], ClassScore) else []


def is_dynamic(target: Target) -> bool:
    """Return whether the selected classes depend on the logits."""
    return any(score.is_dynamic for score in list_class_scores(target))


def freeze_target(target: Target, explained: Mapping[str, Tensor]) -> Target:
    """Return the target that always explains the classes explained before; ``target`` itself if these are none.

    Args:
        target: The target that was explained.
        explained: See `Explanation.explained`.

    >>> target = freeze_target(TopK(1), {"top 1": torch.tensor([2])})
    >>> target(torch.tensor([[5.0, 6.0, 7.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([7.])
    """
    if not explained:
        return target
    if list(explained) == [""]:
        return freeze_classes(explained[""])
    return Parts({name: freeze_classes(classes) for name, classes in explained.items()})
