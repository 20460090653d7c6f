"""Scores of classes: of one class, of several together, or of one against another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import FreezableTarget, Target
from lightning_gradcam.targets.logits import require_logits

Choose = Callable[[Tensor, Probe], Tensor]
"""``(logits (n, K), probe)`` to the classes to explain, see `ClassScore`."""


class ClassTarget(ABC):
    """A target that selects classes in each image: `ClassScore`, `SegmentationScore` and `BoxScore`."""

    @abstractmethod
    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``."""

    @abstractmethod
    def select_classes(self, output: Any, probe: Probe) -> Tensor:
        """Select the classes to explain, as `ClassScore.choose` returns them."""

    @abstractmethod
    def freeze_to(self, classes: Tensor) -> ClassTarget:
        """Return the target that always explains ``classes``, as selected for N images."""

    @abstractmethod
    def select_rows(self, rows: slice | Sequence[int]) -> ClassTarget:
        """Return the target for some images of the probe."""

    def freeze(self, output: Any, probe: Probe) -> ClassTarget:
        """Return the target that always explains the classes selected for this output."""
        return self.freeze_to(self.select_classes(output, probe))

    def find_region(self, output: Any, probe: Probe) -> Tensor | None:  # noqa: ARG002  # of an image, not of pixels
        """Return the pixels whose scores are summed, ``(n, *spatial)`` bool; None for a score of the whole image."""
        return None


@dataclass(frozen=True)
class ClassScore(ClassTarget):
    """Score of one class per image, of several classes together, or of one class against another.

    Args:
        choose: ``(logits (n, K), probe)`` to the classes ``(n,)`` int64, where -1 means no class; to ``(n, 2)``, a
            class and the class whose score is subtracted; or to ``(n, K)`` bool, classes whose scores are summed.
        name: Name in figures: "Grad-CAM of the ...".
        per_image: Whether classes were passed image by image, and so belong to one probe.
        is_dynamic: Whether the selected classes depend on the logits. A snapshot then also explains the classes that
            the previous snapshot selected.
        head: The item with the logits in an output of several; "" for the first.
    """

    choose: Choose
    name: str
    per_image: bool = False
    is_dynamic: bool = False
    head: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether the classes were passed as numbers."""
        return isinstance(self.choose, _FixedClasses)

    def select_classes(self, output: Any, probe: Probe) -> Tensor:
        """Select the classes to explain, as ``choose`` returns them."""
        return self.choose(require_logits(output, self.head), probe)

    def check(self, logits: Tensor, probe: Probe) -> None:
        """Raise a ValueError if the model does not have a selected class. (Waits for the device.)"""
        classes = self.choose(logits, probe)
        if classes.dtype != torch.bool and not isinstance(self.choose, NthLabel):
            check_classes(classes, logits.shape[1], "target" if self.is_fixed else "labels")

    def freeze_to(self, classes: Tensor) -> ClassScore:
        """Return the score of ``classes``, as selected for N images."""
        return replace(freeze_classes(classes), head=self.head)

    def select_rows(self, rows: slice | Sequence[int]) -> ClassScore:
        """Return the target for some images of the probe."""
        if self.per_image and isinstance(self.choose, _FixedClasses):
            return replace(self, choose=self.choose[rows])
        return self

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``; 0 for an image without a class."""
        logits = require_logits(output, self.head)
        # A clone, because autograd cannot save classes that were created in inference mode.
        classes = self.choose(logits, probe).clone()
        if classes.dtype == torch.bool:
            return torch.where(classes, logits, torch.zeros_like(logits)).sum(1)
        if classes.ndim == 2:
            score, subtracted = logits.gather(1, classes).unbind(1)
            return score - subtracted
        scores = logits.gather(1, classes.clamp_min(0)[:, None])[:, 0]
        return torch.where(classes < 0, torch.zeros_like(scores), scores)


def predicted(logits: Tensor, _probe: Probe) -> Tensor:
    """Select the class with the largest logit."""
    return logits.argmax(1)


def label(_logits: Tensor, probe: Probe) -> Tensor:
    """Select the class of the probe's label."""
    if probe.classes is None:
        raise ValueError("Expected labels of shape (N,) for the target 'label', but the probe has none.")
    return probe.classes


def positives(logits: Tensor, probe: Probe) -> Tensor:
    """Select all classes of multi-label labels, ``(n, K)`` bool."""
    if not probe.multilabel or probe.labels is None or probe.labels.shape[1] != logits.shape[1]:
        actual = "none" if probe.labels is None else f"{tuple(probe.labels.shape)} of {probe.labels.dtype}"
        raise ValueError(
            f"Expected multi-label labels of shape (N, {logits.shape[1]}), a 0 or 1 for each of the model's classes, "
            f"but got {actual}."
        )
    return probe.labels > 0


@dataclass(frozen=True)
class NthLabel:
    """The ``n``-th class, from 0, of multi-label labels in ascending order; -1 if an image has fewer labels."""

    n: int

    def __call__(self, logits: Tensor, probe: Probe) -> Tensor:
        """Select the classes, ``(n,)``."""
        is_label = positives(logits, probe)
        is_nth = is_label & (is_label.cumsum(1) == self.n + 1)
        return torch.where(is_nth.any(1), is_nth.int().argmax(1), -1)


@dataclass(frozen=True)
class Ranked:
    """The class with the ``n``-th largest logit, from 0."""

    n: int

    def __call__(self, logits: Tensor, _probe: Probe) -> Tensor:
        """Select the classes, ``(n,)``.

        Raises:
            ValueError: The model has fewer classes.
        """
        if self.n >= logits.shape[1]:
            raise ValueError(
                f"Expected at most {logits.shape[1]} classes to explain, as many as the model has, but got "
                f"at least {self.n + 1}. Pass a smaller `k`: `target=TopK(k)`."
            )
        return logits.argsort(dim=1, descending=True, stable=True)[:, self.n]  # the first of equals, like argmax


@dataclass(frozen=True)
class Against:
    """A class, and the best of all other classes."""

    choose: Choose

    def __call__(self, logits: Tensor, probe: Probe) -> Tensor:
        """Select both classes, ``(n, 2)``."""
        classes = self.choose(logits, probe)
        best_other = logits.detach().scatter(1, classes[:, None], -torch.inf).argmax(1)
        return torch.stack([classes, best_other], 1)


@dataclass(frozen=True)
class _FixedClasses:
    """The same class in all images, or one class per image."""

    classes: Tensor

    def __getitem__(self, rows: slice | Sequence[int]) -> _FixedClasses:
        return _FixedClasses(self.classes[rows if isinstance(rows, slice) else list(rows)])

    def __call__(self, logits: Tensor, probe: Probe) -> Tensor:
        if len(self.classes) not in (1, len(probe)):
            raise ValueError(
                f"Expected one class for all images or one for each of {len(probe)}, but got {len(self.classes)}."
            )
        return self.classes.to(logits.device).expand(len(probe), *self.classes.shape[1:])


def class_target(classes: int | Sequence[int] | Tensor) -> ClassScore:
    """Create the target of one class in all images, or of one class per image.

    Raises:
        TypeError: The classes are not integers.
        ValueError: A class is negative.

    >>> class_target([1, 0])(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Probe(torch.rand(2, 1, 4, 4)))
    tensor([2., 3.])
    """
    tensor = torch.as_tensor(classes)
    if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.ndim > 1 or tensor.numel() == 0:
        raise TypeError(f"Expected a class number, or one per image, as integers, but got {classes!r}.")
    tensor = tensor.long().reshape(-1)
    if tensor.device.type == "cpu" and int(tensor.min()) < 0:
        raise ValueError(f"Expected class numbers from 0, but got {int(tensor.min())}.")
    name = f"class {int(tensor)}" if isinstance(classes, int) else "given classes"
    return ClassScore(_FixedClasses(tensor), name, per_image=len(tensor) > 1)


def freeze_classes(classes: Tensor) -> ClassScore:
    """Create the target of classes that were selected for N images; they are valid, so the device is not read."""
    return ClassScore(_FixedClasses(classes), "held classes", per_image=True)


def select_rows(target: Target, rows: slice | Sequence[int]) -> Target:
    """Return the target for some images of its probe; only a target with a class per image changes.

    >>> target = select_rows(class_target([2, 0, 1]), slice(1, 2))
    >>> target(torch.tensor([[5.0, 6.0, 7.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([5.])
    """
    return target.select_rows(rows) if isinstance(target, FreezableTarget) else target


def check_classes(classes: Tensor, count: int, argument: Literal["target", "labels"] = "target") -> None:
    """Raise a ValueError if one of ``classes`` is not in ``range(count)``. (Waits for the device.)

    Args:
        classes: The classes.
        count: Number of classes of the model.
        argument: Where they come from, for the message.
    """
    low, high = int(classes.min()), int(classes.max())
    if low >= 0 and high < count:
        return
    remedy = "Pass another `target`."
    if argument == "labels":
        remedy = (
            "Leave out images whose label the loss ignores, such as -100."
            if low < 0
            else "If they belong to another output, pass `forward=`, a callable of (model, probe) that returns it; if "
            "the output is not logits, pass `output=`, such as 'embedding'."
        )
    raise ValueError(
        f"Expected classes from 0 to {count - 1}, as the model has {count}, but got {low if low < 0 else high} in "
        f"`{argument}`. {remedy}"
    )
