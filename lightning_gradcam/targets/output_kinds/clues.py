"""What is known about a model's output besides its shape: labels, losses, unused classifiers, and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.composite import list_class_scores
from lightning_gradcam.targets.output_kinds.label_clues import LabelClues, read_labels
from lightning_gradcam.targets.output_kinds.model_clues import LossKind, UnusedClassifier, read_losses, read_num_classes
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.registry import TARGETS


@dataclass(frozen=True)
class OutputClues:
    """What is known about a model's output besides its shape.

    Args:
        labels: The labels and, of collected batches, everything else that may be labels.
        losses: The kinds of loss that the model's training uses, with the name of one of each.
        classifiers: Parts of the model that may turn its output into classes, and that the forward pass does not use.
        num_classes: Number of classes in the data; None if it does not say.
        model_classes: Number of classes that the model calls its own; None if it does not say.
        names_class: Whether the target names a class, which says that there are classes.
        choice: The user's choice.
    """

    labels: Sequence[LabelClues] = ()
    losses: Mapping[LossKind, str] = field(default_factory=dict)
    classifiers: Sequence[UnusedClassifier] = ()
    num_classes: int | None = None
    model_classes: int | None = None
    names_class: bool = False
    choice: OutputName = "auto"

    @property
    def loss(self) -> LossKind | None:
        """The kind of all losses; None if there are several kinds, or none is seen."""
        kinds = list(self.losses)
        return kinds[0] if len(kinds) == 1 else None


def read_clues(
    model: nn.Module,
    probe: Probe,
    target: Target,
    *,
    choice: OutputName = "auto",
    num_classes: int | None = None,
    labels: Sequence[LabelClues] | None = None,
) -> OutputClues:
    """Collect what is known about a model's output before it runs. (Waits for the device.)

    Args:
        model: The model.
        probe: All images.
        target: The score.
        choice: The user's choice.
        num_classes: Number of classes in the data; None if it does not say.
        labels: What may be labels; by default the probe's labels.
    """
    return OutputClues(
        labels=read_labels(probe) if labels is None else labels,
        losses=read_losses(model),
        num_classes=num_classes,
        model_classes=read_num_classes(model),
        names_class=any(score.is_fixed or score is TARGETS["label"] for score in list_class_scores(target)),
        choice=choice,
    )
