"""Embeddings: vectors whose coordinates are not classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore
from lightning_gradcam.targets.composite import list_class_scores
from lightning_gradcam.targets.embeddings import EmbeddingNorm
from lightning_gradcam.targets.output_kinds.base import OutputKind, refuse_classes, weigh_columns
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.registry import TARGETS, target_name
from lightning_gradcam.targets.values import ValueScore, require_values


@dataclass(frozen=True)
class EmbeddingOutput(OutputKind):
    """Embeddings ``(N, width)``.

    ``"predicted"`` explains the norm, see `EmbeddingNorm`; a number explains that coordinate.

    Args:
        width: Number of coordinates.
    """

    width: int = 0

    name: ClassVar[OutputName] = "embedding"

    def describe(self) -> str:
        """Return the number of coordinates."""
        return f"an embedding of {self.width} coordinates"

    def announce(self, target: Target | None) -> str:
        """Return that the norm is explained, if the kind was inferred."""
        if self.is_chosen or target is not TARGETS["predicted"]:
            return ""
        return (
            f"The output is read as {self.describe()}, since {self.reason}: maps show the evidence for its norm. Pass "
            "`target='cosine'` with `references` to explain a similarity, `output='classes'` if these are logits, or "
            "`output='embedding'` to confirm."
        )

    def trace_score(self, output: Any, probe: Probe) -> Tensor:  # noqa: ARG002  # a target
        """Compute the weighted sum of all coordinates."""
        return weigh_columns(require_values(output, self.head))

    def resolve(self, target: Target | None, probe: Probe) -> Target:
        """Return the target in terms of the embedding, so that it is named after it."""
        adapted = self.adapt(TARGETS["predicted"] if target is None else target)
        if isinstance(adapted, ValueScore):
            adapted.check(probe)
        return adapted

    def adapt(self, target: Target) -> Target:
        """Replace the predicted class by the norm, and the score of a class by the coordinate of that number."""
        if not isinstance(target, ClassScore):
            return target
        return EmbeddingNorm() if target is TARGETS["predicted"] else ValueScore(target, self.width, self.head)

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Check that the coordinate exists, and refuse targets that explain classes."""
        adapted = self.adapt(target)
        if isinstance(adapted, ValueScore):
            adapted.check(probe)
        elif adapted is target and list_class_scores(target):
            raise refuse_classes(
                self,
                target_name(target),
                "Pass `target='norm'`, `target='cosine'` with `references`, a callable of (output, probe), or "
                "`output='classes'` if these are logits.",
            )
        return super().validate(adapted, output, probe)
