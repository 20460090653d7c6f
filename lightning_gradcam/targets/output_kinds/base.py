"""Kinds of model output, and the meaning of a class in each: the base class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.embeddings import EmbeddingNorm
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.registry import TARGETS
from lightning_gradcam.utils.cell_centers import CellCenters


@dataclass(frozen=True)
class OutputKind(ABC):
    """Kind of a model's output; a subclass overrides what differs from an output without classes.

    Args:
        num_classes: Number of classes, of images or of pixels; None if it is unknown.
        reason: Why the output was taken for this kind, for messages: "labels are masks".
        head: The item of an output with several: a key or a position, "" for the output itself or its first item.
        label_name: The part of the batch that holds the labels of this output, "" if there is no choice, and None if
            all labels belong to other parts of the model.
        is_chosen: Whether the user chose the kind.
    """

    num_classes: int | None = None
    reason: str = ""
    head: str = ""
    label_name: str | None = ""
    is_chosen: bool = False

    name: ClassVar[OutputName] = "other"
    """The value of the argument ``output`` that chooses this kind."""
    has_classes: ClassVar[bool] = False
    """Whether class targets can be explained."""
    refining_scores: ClassVar[tuple[Target, ...]] = ()
    """Further scores that a layer must reach to be recommended, besides `trace_score`."""

    @property
    def num_logits(self) -> int | None:
        """Number of logits per image; None if the model returns none."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """Return the kind and its size in words, for the summary."""

    def announce(self, target: Target | None) -> str:  # noqa: ARG002  # for kinds that are worth a word
        """Return a sentence for the user about a kind that was inferred, and what ``target`` means for it, or ""."""
        return ""

    def for_model(self, model: nn.Module, probe: Probe) -> OutputKind:  # noqa: ARG002  # the same for all models
        """Return the kind with what the model itself adds; ``model`` is isolated, see `isolation.isolated`."""
        return self

    def for_target(self, target: Target) -> OutputKind:  # noqa: ARG002  # the same for all targets
        """Return the kind as this target reads the output."""
        return self

    @abstractmethod
    def trace_score(self, output: Any, probe: Probe) -> Tensor:
        """Compute the score ``(n,)`` whose gradient shows which layers a class can depend on.

        It includes all classes, since the gradient of a single one may be stopped by an inactive ReLU.
        """

    def resolve(self, target: Target | None, probe: Probe) -> Target:
        """Return the target; if it is None, the label where there is one, else the predicted class."""
        return TARGETS["label" if self.has_labels(probe) else "predicted"] if target is None else target

    def adapt(self, target: Target) -> Target:
        """Replace the score of a class by what it means for this kind of output."""
        return target

    def validate(self, target: Target, output: Any, probe: Probe) -> str:  # noqa: ARG002  # for subclasses
        """Check the target against the output. (Waits for the device.)

        Args:
            target: As it was passed.
            output: The model's output for a few images.
            probe: All images.

        Returns:
            A note for the user about what is explained, or "".

        Raises:
            ValueError: The model does not have a class.
            NotExplainableError: The target's gradient is zero for this output, or it explains classes that are not
                there.
        """
        if isinstance(target, EmbeddingNorm):
            target.check(output)
        return ""

    def check_output(self, output: Any) -> None:  # noqa: B027  # without classes there is nothing to check
        """Raise a NotExplainableError if the output has other classes than in the trace."""

    def find_logits(self, output: Any) -> Tensor | None:  # noqa: ARG002  # there are none
        """Return the logits ``(n, K)``; None if the model returns none."""
        return None

    def locate(self, evidence: Tensor) -> Tensor:
        """Crop a layer's evidence ``(n, *s)`` to the part that covers the image."""
        return evidence

    def locate_centers(self, centers: CellCenters, grid: Sequence[int]) -> CellCenters:  # noqa: ARG002
        """Return the centers in the image of the cells that `locate` returns for evidence on this grid."""
        return centers

    def mark_outputs(self, records: Sequence[LayerRecord], output: Any, probe: Probe) -> tuple[LayerRecord, ...]:  # noqa: ARG002  # no layer
        """Mark the layers that return the scores of classes themselves: these have nothing to explain."""
        return tuple(records)

    def reads_masks(self, probe: Probe) -> bool:  # noqa: ARG002  # never
        """Return whether the probe's labels are masks of classes."""
        return False

    def has_labels(self, probe: Probe) -> bool:  # noqa: ARG002  # there are no classes
        """Return whether the probe's labels name classes of this output."""
        return False


def weigh_columns(scores: Tensor) -> Tensor:
    """Sum the columns of ``(n, K)`` with different weights, since the plain sum of probabilities has no gradient.

    >>> weigh_columns(torch.tensor([[1.0, 1.0, 1.0]]))
    tensor([4.5000])
    """
    return scores @ torch.linspace(1, 2, scores.shape[1], device=scores.device, dtype=scores.dtype)


def refuse_classes(kind: OutputKind, target_name: str, remedy: str) -> NotExplainableError:
    """Return the error for a target that explains classes of an output without classes."""
    since = f", since {kind.reason}" if kind.reason else ""
    return NotExplainableError(
        f"`target` is the {target_name}, but the output is read as {kind.describe()}{since}, which has no classes. "
        f"{remedy}"
    )
