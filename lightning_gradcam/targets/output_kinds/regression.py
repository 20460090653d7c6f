"""Values of each image: a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore
from lightning_gradcam.targets.composite import list_class_scores
from lightning_gradcam.targets.embeddings import is_embedding_target
from lightning_gradcam.targets.output_kinds.base import OutputKind, refuse_classes, weigh_columns
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput
from lightning_gradcam.targets.registry import TARGETS, target_name
from lightning_gradcam.targets.values import ValueScore, ValueSum, require_values


@dataclass(frozen=True)
class RegressionOutput(OutputKind):
    """Values ``(N, num_values)`` that are not logits of classes.

    ``"predicted"`` explains the value itself, in the same direction for all images; of several values their sum. A
    number explains one of several values.

    Args:
        num_values: Number of values per image.
    """

    num_values: int = 1

    name: ClassVar[OutputName] = "regression"

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

    def trace_score(self, output: Any, probe: Probe) -> Tensor:  # noqa: ARG002  # a target
        """Compute the weighted sum of all values."""
        return weigh_columns(require_values(output, self.head))

    def resolve(self, target: Target | None, probe: Probe) -> Target:
        """Return the target in terms of values, so that it is named after them."""
        adapted = self.adapt(TARGETS["predicted"] if target is None else target)
        if isinstance(adapted, ValueScore):
            adapted.check(probe)
        return adapted

    def adapt(self, target: Target) -> Target:
        """Replace the predicted class by all values, and the score of a class by the value of that number."""
        if not isinstance(target, ClassScore):
            return target
        if target is TARGETS["predicted"]:
            return ValueSum(self.num_values, self.head)
        return ValueScore(target, self.num_values, self.head)

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Check that the model has the value, and refuse targets that explain classes."""
        adapted = self.adapt(target)
        if isinstance(adapted, ValueScore):
            adapted.check(probe)
        elif adapted is target and list_class_scores(target):
            raise refuse_classes(
                self,
                target_name(target),
                f"Pass the number of a value, 0 to {self.num_values - 1}, a callable of (output, probe), or "
                "`output='classes'` if these are logits.",
            )
        return super().validate(target, output, probe)
