"""Values of each image: a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.embeddings import is_embedding_target
from lightning_gradcam.targets.output_kinds.base import OutputKind
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.output_kinds.numbers import NumbersOutput
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput
from lightning_gradcam.targets.registry import TARGETS
from lightning_gradcam.targets.values import ValueSum


@dataclass(frozen=True)
class RegressionOutput(NumbersOutput):
    """Values ``(N, num_values)`` that are not logits of classes.

    ``"predicted"`` explains the value itself, in the same direction for all images; of several values their sum. A
    number explains one of several values.

    Args:
        num_values: Number of values per image.
    """

    num_values: int = 1

    name: ClassVar[OutputName] = "regression"
    other_targets: ClassVar[str] = "the number of a value, 0 to {last}"

    def describe(self) -> str:
        """Return the number of values."""
        return "a regression of one value" if self.num_values == 1 else f"a regression of {self.num_values} values"

    def announce(self, target: Target | None) -> str:
        """Return that the value itself is explained, if the kind was inferred."""
        if self.is_chosen or target is not TARGETS["predicted"]:
            return ""
        explained = "the value itself" if self.num_values == 1 else "the sum of the values (`target=k` explains one)"
        return (
            f"The output is read as {self.describe()}, since {self.reason}: maps show the evidence that raises "
            f"{explained}. Pass `output='classes'` if these are logits, or `output='regression'` to confirm."
        )

    def for_target(self, target: Target) -> OutputKind:
        """Return an unknown kind for a target that reads the output as embeddings."""
        return UnknownOutput() if is_embedding_target(target) else self

    @property
    def num_columns(self) -> int:
        """Number of values."""
        return self.num_values

    def score_all(self) -> Target:
        """Return the value, or the sum of several."""
        return ValueSum(self.num_values, self.head)
