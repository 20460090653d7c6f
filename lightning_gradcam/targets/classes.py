"""Scores of classes: which class, which classes together, or one against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import HoldableTarget, Target
from lightning_gradcam.targets.logits import require_logits

Choose = Callable[[Tensor, Probe], Tensor]
"""From logits ``(n, K)`` and the probe to what is explained, see `ClassScore`."""


@dataclass(frozen=True)
class ClassScore:
    """The score of one class per image, of several together, or of one against another; and which they are.

    Args:
        choose: ``(logits (n, K), probe)`` to the classes ``(n,)`` int64, where -1 stands for none; to ``(n, 2)``, a
            class and the one whose score is subtracted; or to ``(n, K)`` bool, classes whose scores are summed up.
        name: How the picture names it: "Grad-CAM of the ...".
        per_image: Whether classes were given image by image, and so belong to one probe.
        is_dynamic: Whether other logits lead to other classes. A snapshot of such a target explains the previous one's,
            too.
    """

    choose: Choose
    name: str
    per_image: bool = False
    is_dynamic: bool = False

    def chosen(self, output: Any, probe: Probe) -> Tensor:
        """What is explained, as `choose` has it."""
        return self.choose(require_logits(output), probe)

    def check(self, logits: Tensor, probe: Probe) -> None:
        """Raise a ValueError where a class is not one of the model's. (Waits for the device.)"""
        chosen = self.choose(logits, probe)
        if chosen.dtype != torch.bool and not isinstance(self.choose, NthLabel):
            check_classes(chosen, logits.shape[1])

    def freeze(self, output: Any, probe: Probe) -> ClassScore:
        """The classes that are chosen now, for these rows for good."""
        return freeze_classes(self.chosen(output, probe))

    def select_rows(self, rows: slice | Sequence[int]) -> ClassScore:
        """The same for some rows of the probe."""
        given_here = self.per_image and isinstance(self.choose, _Given)
        return replace(self, choose=self.choose[rows]) if given_here else self  # type: ignore[index]  # as just seen

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """The scores, ``(n,)``; 0 where there is no class."""
        logits = require_logits(output)
        # A clone, as autograd refuses to keep classes that were made in inference mode.
        chosen = self.choose(logits, probe).clone()
        if chosen.dtype == torch.bool:
            return torch.where(chosen, logits, torch.zeros_like(logits)).sum(1)
        if chosen.ndim == 2:
            first, second = logits.gather(1, chosen).unbind(1)
            return first - second
        of_class = logits.gather(1, chosen.clamp_min(0)[:, None])[:, 0]
        return torch.where(chosen < 0, torch.zeros_like(of_class), of_class)


def predicted(logits: Tensor, _probe: Probe) -> Tensor:
    """The class with the largest logit."""
    return logits.argmax(1)


def label(_logits: Tensor, probe: Probe) -> Tensor:
    """The class that the probe's labels say."""
    if probe.classes is None:
        raise ValueError("Expected labels of shape (N,) for the target 'label', but the probe has none.")
    return probe.classes


def positives(logits: Tensor, probe: Probe) -> Tensor:
    """All classes that multi-label labels say, ``(n, K)`` bool."""
    if not probe.multilabel or probe.labels is None or probe.labels.shape[1] != logits.shape[1]:
        got = "none" if probe.labels is None else f"{tuple(probe.labels.shape)} of {probe.labels.dtype}"
        raise ValueError(
            f"Expected multi-label labels of shape (N, {logits.shape[1]}), a 0 or 1 for each of the model's classes, "
            f"but got {got}."
        )
    return probe.labels > 0


@dataclass(frozen=True)
class NthLabel:
    """The ``n``-th, from 0, of the classes that multi-label labels say, in the order of their numbers; -1 for none."""

    n: int

    def __call__(self, logits: Tensor, probe: Probe) -> Tensor:
        """The classes, ``(n,)``."""
        said = positives(logits, probe)
        place = said & (said.cumsum(1) == self.n + 1)
        return torch.where(place.any(1), place.int().argmax(1), -1)


@dataclass(frozen=True)
class Ranked:
    """The class with the ``n``-th largest logit, from 0."""

    n: int

    def __call__(self, logits: Tensor, _probe: Probe) -> Tensor:
        """The classes, ``(n,)``.

        Raises:
            ValueError: There are not so many.
        """
        if self.n >= logits.shape[1]:
            raise ValueError(f"Expected at most {logits.shape[1]} classes to explain, as the model has no more.")
        return logits.argsort(dim=1, descending=True, stable=True)[:, self.n]  # of equals the first one, as argmax


@dataclass(frozen=True)
class Against:
    """A class and the best of all others."""

    choose: Choose

    def __call__(self, logits: Tensor, probe: Probe) -> Tensor:
        """Both, ``(n, 2)``."""
        chosen = self.choose(logits, probe)
        others = logits.detach().scatter(1, chosen[:, None], -torch.inf).argmax(1)
        return torch.stack([chosen, others], 1)


@dataclass(frozen=True)
class _Given:
    classes: Tensor

    def __getitem__(self, rows: slice | Sequence[int]) -> _Given:
        return _Given(self.classes[rows if isinstance(rows, slice) else list(rows)])

    def __call__(self, logits: Tensor, probe: Probe) -> Tensor:
        if len(self.classes) not in (1, len(probe)):
            raise ValueError(
                f"Expected one class for all images or one for each of {len(probe)}, but got {len(self.classes)}."
            )
        return self.classes.to(logits.device).expand(len(probe), *self.classes.shape[1:])


def class_target(classes: int | Sequence[int] | Tensor) -> ClassScore:
    """Explain one class in all images, or one per image.

    Raises:
        TypeError: They are no integers.
        ValueError: They are negative.

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
    return ClassScore(_Given(tensor), name, per_image=len(tensor) > 1)


def freeze_classes(classes: Tensor) -> ClassScore:
    """Explain what was chosen for N images before; it is known to be right, so the device is not asked."""
    return ClassScore(_Given(classes), "held classes", per_image=True)


def select_rows(target: Target, rows: slice | Sequence[int]) -> Target:
    """The same target for some rows of its probe; only one that chooses for each image has to be cut.

    >>> target = select_rows(class_target([2, 0, 1]), slice(1, 2))
    >>> target(torch.tensor([[5.0, 6.0, 7.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([5.])
    """
    return target.select_rows(rows) if isinstance(target, HoldableTarget) else target


def check_classes(classes: Tensor, count: int) -> None:
    """Raise a ValueError where one of ``classes`` is not in ``range(count)``. (Waits for the device.)"""
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= count:
        raise ValueError(
            f"Expected classes from 0 to {count - 1}, as the model has {count}, but got {low if low < 0 else high}."
        )
