"""Logits of the classes of each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore
from lightning_gradcam.targets.composite import list_class_scores
from lightning_gradcam.targets.embeddings import is_embedding_target
from lightning_gradcam.targets.logits import are_probabilities, find_logits, require_logits
from lightning_gradcam.targets.output_kinds.base import OutputKind, weigh_columns
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput

PROBABILITIES_NOTE = (
    "The model returns probabilities whose logits are unknown, so the gradient of a probability is explained. It is "
    "near zero where the model is confident, and mixes in all other classes. Return the logits, or pass `forward=`, a "
    "callable of (model, probe) that does."
)


@dataclass(frozen=True)
class ClassificationOutput(OutputKind):
    """Logits ``(N, num_classes)``."""

    name: ClassVar[OutputName] = "classes"
    has_classes: ClassVar[bool] = True

    @property
    def num_logits(self) -> int | None:
        """Number of logits per image."""
        return self.num_classes

    def describe(self) -> str:
        """Return the number of logits."""
        return f"logits of {self.num_classes} classes"

    def for_target(self, target: Target) -> OutputKind:
        """Return an unknown kind for a target that reads the output as embeddings."""
        return UnknownOutput() if is_embedding_target(target) else self

    def trace_score(self, output: Any, probe: Probe) -> Tensor:  # noqa: ARG002  # a target
        """Compute the weighted sum of all logits."""
        return weigh_columns(require_logits(output, self.head))

    def adapt(self, target: Target) -> Target:
        """Return the score of a class with the head that it belongs to."""
        return replace(target, head=self.head) if isinstance(target, ClassScore) and self.head else target

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Check that the model has the classes; return a note if they are explained through probabilities."""
        scores, logits = list_class_scores(target), require_logits(output, self.head)
        for score in scores:
            score.check(logits.new_zeros(len(probe), logits.shape[1]), probe)
        return PROBABILITIES_NOTE if scores and are_probabilities(logits) else ""

    def check_output(self, output: Any) -> None:
        """Raise a NotExplainableError if the number of logits has changed."""
        logits = self.find_logits(output)
        if logits is None or logits.shape[1] != self.num_classes:
            # Checked in every pass, since indexing a missing class aborts the process on an accelerator.
            raise NotExplainableError(
                f"The model returned {self.num_classes} logits per image when it was traced, and "
                f"{'none' if logits is None else logits.shape[1]} now. Start another run after changing the model."
            )

    def find_logits(self, output: Any) -> Tensor | None:
        """Return the logits ``(n, K)``."""
        return find_logits(output, self.head)

    def has_labels(self, probe: Probe) -> bool:
        """Return whether the probe has a class per image, or a 0 or 1 for each of the model's classes."""
        is_multilabel = probe.multilabel and probe.labels is not None and probe.labels.shape[1] == self.num_classes
        return probe.classes is not None or is_multilabel
