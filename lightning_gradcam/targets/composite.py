"""Targets made of others: each of them explained by itself, from one forward pass."""

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
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"Expected `k` of at least 1 class, but got {k!r}.")


class _Composite(ABC):
    """What targets made of others have in common; `parts` is theirs."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, ClassScore]:
        """What is explained by itself, by the name that its keys end in; "" where there is one, and no end."""

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """The scores of all parts, ``(n, parts)``; of a single one, ``(n,)``."""
        scores = [part(output, probe) for part in self.parts.values()]
        return torch.stack(scores, 1) if len(scores) > 1 else scores[0]

    def freeze(self, output: Any, probe: Probe) -> Parts:
        """The classes that are chosen now, for these rows for good."""
        return Parts({name: part.freeze(output, probe) for name, part in self.parts.items()})

    def select_rows(self, rows: slice | Sequence[int]) -> Parts:
        """The same for some rows of the probe."""
        return Parts({name: part.select_rows(rows) for name, part in self.parts.items()})


@dataclass(frozen=True)
class Parts(_Composite):
    """Scores to be explained each by itself.

    Args:
        scores: By the names that keys of the explanation end in.
        name: How pictures name all of them.
    """

    scores: Mapping[str, ClassScore]
    name: str = "held classes"

    @property
    def parts(self) -> Mapping[str, ClassScore]:
        """The scores."""
        return self.scores


@dataclass(frozen=True)
class TopK(_Composite):
    """The classes with the largest scores, each explained by itself: one forward pass, ``k`` backward through the head.

    Keys of the explanation end in ``/top 1``, ``/top 2``, ...; which classes these are in each image, `explained` says.

    Args:
        k: How many; at most as many as the model has.

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
        """How pictures name it."""
        return f"{self.k} best classes, each"

    @cached_property
    def parts(self) -> Mapping[str, ClassScore]:
        """One for each rank."""
        return {f"top {n + 1}": ClassScore(Ranked(n), f"class of rank {n + 1}", is_dynamic=True) for n in range(self.k)}


@dataclass(frozen=True)
class EachLabel(_Composite):
    """The classes that multi-label labels say, each explained by itself, in the order of their numbers.

    Keys of the explanation end in ``/label 1``, ``/label 2``, ... An image with fewer labels has "no label" there.

    Args:
        k: How many at most.

    Raises:
        ValueError: ``k`` is under 1.
    """

    k: int = 3

    def __post_init__(self) -> None:
        _check_count(self.k)

    @property
    def name(self) -> str:
        """How pictures name it."""
        return "label" if self.k == 1 else "labels, each"

    @cached_property
    def parts(self) -> Mapping[str, ClassScore]:
        """One for each label."""
        return {f"label {n + 1}": ClassScore(NthLabel(n), f"label {n + 1}") for n in range(self.k)}


@dataclass(frozen=True)
class Margin(_Composite):
    """How far a class is ahead of the best other one: the evidence that tells both apart.

    Args:
        of: ``"predicted"``, then this is the best class against the second best; ``"label"``; or a class.

    Raises:
        TypeError: It is nothing of this.
        ValueError: It is another name, or below 0.

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
        """How pictures name it."""
        best = {"predicted": "best class against the second best", "label": "label against the best other class"}
        return best.get(str(self.of), f"class {self.of} against the best other one")

    @cached_property
    def parts(self) -> Mapping[str, ClassScore]:
        """The one score."""
        choose = _CHOICES[self.of] if isinstance(self.of, str) else class_target(self.of).choose
        return {"": ClassScore(Against(choose), self.name, is_dynamic=True)}


_CHOICES = {"predicted": predicted, "label": label}


def split_target(target: Target) -> Mapping[str, Target]:
    """What of a target is explained by itself, by the name that keys end in; "" is the end of a single score's.

    >>> list(split_target(TopK(2))), list(split_target(lambda output, probe: output[:, 0]))
    (['top 1', 'top 2'], [''])
    """
    return getattr(target, "parts", None) or {"": target}


def list_class_scores(target: Target) -> list[ClassScore]:
    """The scores of classes that a target is made of; none where it is made of something else."""
    parts = list(split_target(target).values())
    return [part for part in parts if isinstance(part, ClassScore)] if isinstance(parts[0], ClassScore) else []


def is_dynamic(target: Target) -> bool:
    """Whether other logits lead to other classes."""
    return any(part.is_dynamic for part in list_class_scores(target))


def freeze_target(target: Target, explained: Mapping[str, Tensor]) -> Target:
    """The target that stays with what was explained, see `Explanation.explained`; itself where that was no class.

    >>> target = freeze_target(TopK(1), {"top 1": torch.tensor([2])})
    >>> target(torch.tensor([[5.0, 6.0, 7.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([7.])
    """
    if not explained:
        return target
    if list(explained) == [""]:
        return freeze_classes(explained[""])
    return Parts({name: freeze_classes(chosen) for name, chosen in explained.items()})
