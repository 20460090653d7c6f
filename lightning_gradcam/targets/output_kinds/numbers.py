"""Numbers of each image that are not scores of classes: what values and embeddings have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore
from lightning_gradcam.targets.composite import list_class_scores
from lightning_gradcam.targets.output_kinds.base import OutputKind, refuse_classes, weigh_columns
from lightning_gradcam.targets.registry import TARGETS, target_name
from lightning_gradcam.targets.values import ValueScore, require_values


@dataclass(frozen=True)
class NumbersOutput(OutputKind):
    """Numbers ``(N, K)``: a class number as target explains that column, the predicted class all of them."""

    other_targets: ClassVar[str] = ""
    """What may be passed instead of a class, for the message."""

    @property
    @abstractmethod
    def num_columns(self) -> int:
        """Number of numbers per image."""

    @abstractmethod
    def score_all(self) -> Target:
        """Return the target that explains all numbers together."""

    def trace_score(self, output: Any, probe: Probe) -> Tensor:  # noqa: ARG002  # a target
        """Compute the weighted sum of all numbers."""
        return weigh_columns(require_values(output, self.head))

    def resolve(self, target: Target | None, probe: Probe) -> Target:
        """Return the target in terms of the numbers, so that it is named after them."""
        adapted = self.adapt(TARGETS["predicted"] if target is None else target)
        if isinstance(adapted, ValueScore):
            adapted.check(probe)
        return adapted

    def adapt(self, target: Target) -> Target:
        """Replace the predicted class by all numbers, and the score of a class by the number in that column."""
        if not isinstance(target, ClassScore):
            return target
        return self.score_all() if target is TARGETS["predicted"] else ValueScore(target, self.num_columns, self.head)

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Check that the column exists, and refuse targets that explain classes."""
        adapted = self.adapt(target)
        if isinstance(adapted, ValueScore):
            adapted.check(probe)
        elif adapted is target and list_class_scores(target):
            other_targets = self.other_targets.format(last=self.num_columns - 1)
            remedy = f"Pass {other_targets}, a callable of (output, probe), or `output='classes'` if these are logits."
            raise refuse_classes(self, target_name(target), remedy)
        return super().validate(adapted, output, probe)
