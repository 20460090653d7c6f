"""Scores of values that are not classes: those of a regression, and the coordinates of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.classes import ClassScore, ClassTarget, freeze_classes
from lightning_gradcam.targets.logits import list_items
from lightning_gradcam.targets.unsupported import unsupported_output


def find_values(output: Any, head: str = "") -> Tensor | None:
    """Return the values ``(n, K)`` in a model's output, as it returns them; None if there are none.

    >>> import torch
    >>> find_values({"age": torch.tensor([3.0, 4.0])})
    tensor([[3.],
            [4.]])
    """
    for name, tensor in list_items(output):
        if tensor.is_floating_point() and tensor.ndim in (1, 2) and head in ("", name):
            return tensor.reshape(len(tensor), -1)
    return None


def require_values(output: Any, head: str = "") -> Tensor:
    """Return the values ``(n, K)`` as `find_values` does.

    Raises:
        NotExplainableError: The output has none.
    """
    values = find_values(output, head)
    if values is None:
        raise unsupported_output("Expected values of shape (N, K) in the model's output", output)
    return values


@dataclass(frozen=True)
class ValueSum:
    """The value of each image, or the sum of several: what raises the number itself.

    Args:
        count: Number of values.
        head: The item of an output with several.

    >>> import torch
    >>> ValueSum(2)(torch.tensor([[1.0, 3.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([4.])
    """

    count: int
    head: str = ""

    @property
    def name(self) -> str:
        """Name in figures."""
        return "value" if self.count == 1 else f"sum of the {self.count} values"

    @property
    def score_word(self) -> str:
        """What captions call the score."""
        return "value" if self.count == 1 else "sum"

    def __call__(self, output: Any, _probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``."""
        return require_values(output, self.head).sum(1)


@dataclass(frozen=True)
class ValueScore(ClassTarget):
    """One of several values of each image, by its number.

    Args:
        of: A `ClassScore`, whose classes are the numbers of values.
        count: Number of values.
        head: The item of an output with several.

    >>> import torch
    >>> from lightning_gradcam.targets.classes import class_target
    >>> ValueScore(class_target(1), 2)(torch.tensor([[1.0, 3.0]]), Probe(torch.rand(1, 1, 4, 4)))
    tensor([3.])
    """

    of: ClassScore
    count: int
    head: str = ""

    score_word: ClassVar[str] = "value"
    """What captions call the score."""

    @property
    def name(self) -> str:
        """Name in figures."""
        return self.of.name.replace("class", "value")

    def check(self, probe: Probe) -> None:
        """Raise if the target does not number values that exist. (Waits for the device.)

        Raises:
            ValueError: There are fewer values.
            NotExplainableError: The target depends on classes, as the label does.
        """
        if not self.of.is_fixed:
            raise NotExplainableError(
                f"`target` is the {self.of.name}, but the output is read as values, which are not classes. Pass "
                "`target='predicted'`, the number of one of several values, or `output='classes'` if these are logits."
            )
        numbers = self.of.choose(probe.images.new_zeros(len(probe), self.count), probe)
        if int(numbers.max()) >= self.count:
            raise ValueError(
                f"Expected values from 0 to {self.count - 1} in `target`, as the model has {self.count}, but got "
                f"{int(numbers.max())}."
            )

    def select_classes(self, output: Any, probe: Probe) -> Tensor:
        """Return the numbers ``(n,)`` of the explained values."""
        return self.of.choose(require_values(output, self.head), probe)

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``."""
        values = require_values(output, self.head)
        numbers = self.of.choose(values, probe).clone()  # autograd cannot save inference tensors
        return values.gather(1, numbers[:, None])[:, 0]

    def freeze_to(self, classes: Tensor) -> ValueScore:
        """Return the score of these values."""
        return replace(self, of=freeze_classes(classes))

    def select_rows(self, rows: slice | Sequence[int]) -> ValueScore:
        """Return the target for some images of the probe."""
        return replace(self, of=self.of.select_rows(rows))
