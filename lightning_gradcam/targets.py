"""Which score is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.explanation import NotExplainableError
from lightning_gradcam.probe import Choosing, Probe, Target
from lightning_gradcam.registry import Registry


def logits_of(output: Any) -> Tensor:
    """The logits ``(n, K)`` in what a classifier returned: a tensor, or the first one in a tuple, list or mapping.

    A mapping's ``"logits"`` and an object's ``.logits`` come first. One logit per image, ``(n,)`` or ``(n, 1)``, is a
    binary classifier's: it becomes ``(n, 2)``, whose softmax is its sigmoid.

    Raises:
        NotExplainableError: There are none.

    >>> logits_of({"loss": torch.zeros(()), "logits": torch.tensor([[2.0]])})
    tensor([[-1.,  1.]])
    """
    logits = find_logits(output)
    if logits is None:
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        raise NotExplainableError(
            f"Expected logits of shape (N, classes) in the model's output, but got a {type(output).__name__}{shape}. "
            "Pass `target=`, a callable of (output, probe) that returns one score per image, or `forward=`, a callable "
            "of (model, probe) that returns logits."
        )
    return logits


def find_logits(output: Any) -> Tensor | None:
    """As `logits_of`, but None where there are none."""
    if isinstance(output, Tensor):
        if not output.is_floating_point() or output.ndim not in (1, 2):
            return None
        logits = output.reshape(len(output), -1)
        if logits.shape[1] > 1:
            return logits
        if "Sigmoid" in type(output.grad_fn).__name__:
            logits = logits.logit(1e-6)  # a probability: back to what it was made of
        return torch.cat([-logits / 2, logits / 2], dim=1)
    if isinstance(output, Mapping):
        items = [output[k] for k in ("logits", *(k for k in output if k != "logits")) if k in output]
    elif hasattr(output, "logits"):
        items = [output.logits]
    else:
        items = list(output) if isinstance(output, (tuple, list)) else []
    return next((found for item in items if (found := find_logits(item)) is not None), None)


@dataclass(frozen=True)
class ClassScore:
    """The score of one class per image, and which class that is.

    Args:
        choose: ``(logits (n, K), probe) -> classes (n,)``.
        name: How the picture names it: "Grad-CAM of the ...".
        per_image: Whether classes were given image by image, and so belong to one probe.
    """

    choose: Callable[[Tensor, Probe], Tensor]
    name: str
    per_image: bool = False

    def classes(self, output: Any, probe: Probe) -> Tensor:
        """The classes explained, ``(n,)`` int64."""
        return self.choose(logits_of(output), probe)

    def held(self, output: Any, probe: Probe) -> ClassScore:
        """The classes that are chosen now, for these rows for good."""
        return held(self.classes(output, probe))

    def for_rows(self, rows: slice | Sequence[int]) -> ClassScore:
        """The same for some rows of the probe."""
        given_here = self.per_image and isinstance(self.choose, _Given)
        return replace(self, choose=self.choose[rows]) if given_here else self  # type: ignore[index]  # as just seen

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """The scores, ``(n,)``."""
        logits = logits_of(output)
        # A clone, as autograd refuses to keep classes that were made in inference mode.
        return logits.gather(1, self.choose(logits, probe)[:, None].clone())[:, 0]


TARGETS = Registry[Target]("target")
"""Targets by name; ``TARGETS.register("name")(target)`` adds one."""


def _predicted(logits: Tensor, _probe: Probe) -> Tensor:
    return logits.argmax(1)


def _label(_logits: Tensor, probe: Probe) -> Tensor:
    if probe.classes is None:
        raise ValueError("Expected labels of shape (N,) for the target 'label', but the probe has none.")
    return probe.classes


TARGETS.register("predicted")(ClassScore(_predicted, "predicted class"))
TARGETS.register("label")(ClassScore(_label, "label"))


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
        return self.classes.to(logits.device).expand(len(probe))


def given(classes: int | Sequence[int] | Tensor) -> ClassScore:
    """Explain one class in all images, or one per image.

    Raises:
        TypeError: They are no integers.
        ValueError: They are negative.

    >>> given([1, 0])(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Probe(torch.rand(2, 1, 4, 4)))
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


def held(classes: Tensor) -> ClassScore:
    """Explain the classes ``(N,)`` of another explanation; they are known to be right, so the device is not asked."""
    return ClassScore(_Given(classes), "held classes", per_image=True)


def for_rows(target: Target, rows: slice | Sequence[int]) -> Target:
    """The same target for some rows of its probe; only one that chooses for each image has to be cut.

    >>> for_rows(given([2, 0, 1]), slice(1, 2))(torch.tensor([[5.0, 6.0, 7.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([5.])
    """
    return target.for_rows(rows) if isinstance(target, Choosing) else target


def coerce_target(target: str | int | Sequence[int] | Tensor | Target) -> Target:
    """The target of that name, of these classes, or the callable itself.

    Raises:
        ValueError: No target has that name.
        TypeError: It is nothing of the above.
    """
    if isinstance(target, str):
        return TARGETS.named(target)
    if callable(target) and not isinstance(target, Tensor):
        return target
    return given(target)


def target_name(target: Target) -> str:
    """How pictures name a target.

    >>> target_name(TARGETS["label"]), target_name(given(3))
    ('label', 'class 3')
    """
    return str(getattr(target, "name", None) or getattr(target, "__name__", type(target).__name__))


def check_classes(classes: Tensor, count: int) -> None:
    """Raise a ValueError where one of ``classes`` is not in ``range(count)``. (Waits for the device.)"""
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= count:
        raise ValueError(
            f"Expected classes from 0 to {count - 1}, as the model has {count}, but got {low if low < 0 else high}."
        )
