"""Kinds of model output: logits, scores of pixels, boxes or something else, and the meaning of a class in each.

`find_output_kind` asks each class of `OUTPUT_KINDS` whether it recognizes the output. A new kind is a subclass of
`OutputKind` with an entry there.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore
from lightning_gradcam.targets.composite import list_class_scores, split_target
from lightning_gradcam.targets.detection import (
    BoxScore,
    find_boxes,
    score_largest_box,
    score_smallest_box,
    sum_box_scores,
)
from lightning_gradcam.targets.embeddings import EmbeddingNorm, is_embedding_target
from lightning_gradcam.targets.logits import are_probabilities, find_logits, require_logits
from lightning_gradcam.targets.padding import ImageFraction, crop_padding, find_image_fraction
from lightning_gradcam.targets.segmentation import SegmentationScore, find_pixel_scores, require_pixel_scores

PROBABILITIES_NOTE = (
    "The model returns probabilities whose logits are unknown, so the gradient of a probability is explained. It is "
    "near zero where the model is confident, and mixes in all other classes. Return the logits, or pass `forward=`, a "
    "callable of (model, probe) that does."
)


@dataclass(frozen=True)
class OutputKind(ABC):
    """Kind of a model's output; this base class is an output without classes.

    Args:
        num_classes: Number of classes, of images or of pixels; None if it is unknown.
    """

    num_classes: int | None = None

    has_classes: ClassVar[bool] = True
    """Whether class targets can be explained."""
    refining_scores: ClassVar[tuple[Target, ...]] = ()
    """Further scores that a layer must reach to be recommended, besides `trace_score`."""

    @classmethod
    @abstractmethod
    def recognize(cls, output: Any, probe: Probe) -> OutputKind | None:
        """Return the kind if the output for the images of ``probe`` is of it, else None."""

    @property
    def num_logits(self) -> int | None:
        """Number of logits per image; None if the model returns none."""
        return None

    def for_model(self, model: nn.Module, probe: Probe) -> OutputKind:  # noqa: ARG002  # the same for all models
        """Return the kind with what the model itself adds; ``model`` is isolated, see `isolation.isolated`."""
        return self

    def for_target(self, target: Target) -> OutputKind:  # noqa: ARG002  # the same for all targets
        """Return the kind as this target reads the output."""
        return self

    def trace_score(self, output: Any, probe: Probe) -> Tensor:  # noqa: ARG002  # a target
        """Compute the score ``(n,)`` whose gradient shows which layers a class can depend on.

        It includes all classes, since the gradient of a single one may be stopped by an inactive ReLU.
        """
        return _weigh_classes(require_logits(output))

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
            NotExplainableError: The target's gradient is zero for this output.
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

    def mark_outputs(self, records: Sequence[LayerRecord], output: Any, probe: Probe) -> tuple[LayerRecord, ...]:  # noqa: ARG002  # no layer
        """Mark the layers that return the scores of classes themselves: these have nothing to explain."""
        return tuple(records)

    def reads_masks(self, probe: Probe) -> bool:  # noqa: ARG002  # never
        """Return whether the probe's labels are masks of classes."""
        return False

    def has_labels(self, probe: Probe) -> bool:
        """Return whether the probe's labels name classes of this output."""
        return probe.classes is not None


@dataclass(frozen=True)
class ClassificationOutput(OutputKind):
    """Logits ``(N, num_classes)``."""

    @classmethod
    def recognize(cls, output: Any, probe: Probe) -> OutputKind | None:  # noqa: ARG003
        """Recognize logits."""
        logits = find_logits(output)
        return None if logits is None else cls(logits.shape[1])

    @property
    def num_logits(self) -> int | None:
        """Number of logits per image."""
        return self.num_classes

    def for_target(self, target: Target) -> OutputKind:
        """Return an unknown kind for a target that reads the output as embeddings."""
        return UnknownOutput() if is_embedding_target(target) else self

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Check that the model has the classes; return a note if they are explained through probabilities."""
        scores, logits = list_class_scores(target), require_logits(output)
        for score in scores:
            score.check(logits.new_zeros(len(probe), logits.shape[1]), probe)
        return PROBABILITIES_NOTE if scores and are_probabilities(logits) else ""

    def check_output(self, output: Any) -> None:
        """Raise a NotExplainableError if the number of logits has changed."""
        logits = find_logits(output)
        if logits is None or logits.shape[1] != self.num_classes:
            # Checked in every pass, since indexing a missing class aborts the process on an accelerator.
            raise NotExplainableError(
                f"The model returned {self.num_classes} logits per image when it was traced, and "
                f"{'none' if logits is None else logits.shape[1]} now. Start another run after changing the model."
            )

    def find_logits(self, output: Any) -> Tensor | None:
        """Return the logits ``(n, K)``."""
        return find_logits(output)

    def has_labels(self, probe: Probe) -> bool:
        """Return whether the probe has a class per image, or a 0 or 1 for each of the model's classes."""
        is_multilabel = probe.multilabel and probe.labels is not None and probe.labels.shape[1] == self.num_classes
        return probe.classes is not None or is_multilabel


@dataclass(frozen=True)
class SegmentationOutput(OutputKind):
    """Scores ``(N, num_classes, *spatial)`` of the classes at each pixel."""

    @classmethod
    def recognize(cls, output: Any, probe: Probe) -> OutputKind | None:
        """Recognize scores of pixels."""
        scores = find_pixel_scores(output, len(probe.size))
        return None if scores is None else cls(scores.shape[1])

    def for_target(self, target: Target) -> OutputKind:
        """Return the kind without a number of classes for a target that explains none of them."""
        return self if self._list_scores(target) else replace(self, num_classes=None)

    def trace_score(self, output: Any, probe: Probe) -> Tensor:
        """Compute the weighted sum of all classes over all pixels."""
        return _weigh_classes(require_pixel_scores(output, len(probe.size)).flatten(2).sum(2))

    def adapt(self, target: Target) -> Target:
        """Replace the score of a class by its sum over pixels."""
        return SegmentationScore(target) if isinstance(target, ClassScore) else target

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Check that the model has the classes."""
        count = require_pixel_scores(output, len(probe.size)).shape[1]
        for score in self._list_scores(target):
            score.check(count, probe)
        return super().validate(target, output, probe)

    def _list_scores(self, target: Target) -> list[SegmentationScore]:
        """List the scores of pixels that the target explains."""
        scores = [self.adapt(score) for score in split_target(target).values()]
        return [score for score in scores if isinstance(score, SegmentationScore)]

    def mark_outputs(self, records: Sequence[LayerRecord], output: Any, probe: Probe) -> tuple[LayerRecord, ...]:
        """Mark the last layers with a channel per class, back to the last activation or normalization.

        A classifier follows an activation or a normalization, so these do not return scores.
        """
        count = require_pixel_scores(output, len(probe.size)).shape[1]
        channels, marked = {count, *([1] if count == 2 else [])}, list(records)
        for i, record in reversed(list(enumerate(records))):
            if record.reaches and record.cells > 1:
                if record.shape[1] not in channels or _NO_CLASSIFIER.search(record.kind):
                    break
                marked[i] = replace(record, answers=True)
        return tuple(marked)

    def reads_masks(self, probe: Probe) -> bool:
        """Return whether the probe has masks."""
        return probe.has_masks

    def has_labels(self, probe: Probe) -> bool:
        """Return whether the probe has a class per image, or masks."""
        return probe.classes is not None or probe.has_masks


@dataclass(frozen=True)
class DetectionOutput(OutputKind):
    """Boxes of each image.

    Args:
        num_classes: None, since boxes name only the classes that were detected.
        image_fraction: Fraction of a layer's grid that the image covers.
    """

    image_fraction: ImageFraction = ()

    refining_scores: ClassVar[tuple[Target, ...]] = (score_smallest_box, score_largest_box)

    @classmethod
    def recognize(cls, output: Any, probe: Probe) -> OutputKind | None:  # noqa: ARG003
        """Recognize boxes."""
        return None if find_boxes(output) is None else cls()

    def for_model(self, model: nn.Module, probe: Probe) -> OutputKind:
        """Return the kind with the padding that the model adds to images."""
        return replace(self, image_fraction=find_image_fraction(model, probe))

    def trace_score(self, output: Any, probe: Probe) -> Tensor:
        """Compute the sum of all boxes' scores."""
        return sum_box_scores(output, probe)

    def adapt(self, target: Target) -> Target:
        """Replace the score of a class by the score of its best box."""
        return BoxScore(target) if isinstance(target, ClassScore) else target

    def locate(self, evidence: Tensor) -> Tensor:
        """Crop the padding."""
        return crop_padding(evidence, self.image_fraction)


@dataclass(frozen=True)
class UnknownOutput(OutputKind):
    """Output without classes, for targets that are callables or read embeddings."""

    has_classes: ClassVar[bool] = False

    @classmethod
    def recognize(cls, output: Any, probe: Probe) -> OutputKind | None:  # noqa: ARG003
        """Recognize any output."""
        return cls()

    def has_labels(self, probe: Probe) -> bool:  # noqa: ARG002  # there are no classes
        """Return False: there are no classes."""
        return False


OUTPUT_KINDS: tuple[type[OutputKind], ...] = (ClassificationOutput, DetectionOutput, SegmentationOutput, UnknownOutput)
"""The kinds in the order in which they are tried."""


def find_output_kind(output: Any, probe: Probe) -> OutputKind:
    """Find the kind of a model's output for the images of ``probe``.

    >>> probe = Probe(torch.rand(2, 3, 8, 8))
    >>> for output in (torch.rand(2, 5), {"out": torch.rand(2, 5, 8, 8)}, []):
    ...     find_output_kind(output, probe)
    ClassificationOutput(num_classes=5)
    SegmentationOutput(num_classes=5)
    UnknownOutput(num_classes=None)
    """
    kinds = (kind.recognize(output, probe) for kind in OUTPUT_KINDS)
    return next(kind for kind in kinds if kind is not None)


def _weigh_classes(logits: Tensor) -> Tensor:
    """Sum the logits ``(n, K)`` with different weights, since the plain sum of probabilities has no gradient."""
    return logits @ torch.linspace(1, 2, logits.shape[1], device=logits.device, dtype=logits.dtype)


_NO_CLASSIFIER = re.compile(r"(elu6?|glu|swish|silu|mish|tanh|norm(\dd)?)$", re.IGNORECASE)
"""Class names of activations and normalizations."""
