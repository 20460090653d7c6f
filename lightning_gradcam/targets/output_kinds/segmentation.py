"""Scores of classes at each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore
from lightning_gradcam.targets.composite import split_target
from lightning_gradcam.targets.output_kinds.base import OutputKind, weigh_columns
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.output_kinds.pixel_layers import mark_pixel_layers
from lightning_gradcam.targets.segmentation import SegmentationScore, require_pixel_scores


@dataclass(frozen=True)
class SegmentationOutput(OutputKind):
    """Scores ``(N, num_classes, *spatial)`` of the classes at each pixel."""

    name: ClassVar[OutputName] = "segmentation"
    has_classes: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the number of classes."""
        count = "" if self.num_classes is None else f"{self.num_classes} "
        return f"scores of {count}classes at each pixel"

    def for_target(self, target: Target) -> OutputKind:
        """Return the kind without a number of classes for a target that explains none of them."""
        return self if self._list_scores(target) else replace(self, num_classes=None)

    def trace_score(self, output: Any, probe: Probe) -> Tensor:
        """Compute the weighted sum of all classes over all pixels."""
        return weigh_columns(require_pixel_scores(output, len(probe.size)).flatten(2).sum(2))

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
        """Mark the last layers with a channel per class."""
        return mark_pixel_layers(records, output, probe)

    def reads_masks(self, probe: Probe) -> bool:
        """Return whether the probe has masks."""
        return probe.has_masks

    def has_labels(self, probe: Probe) -> bool:
        """Return whether the probe has a class per image, or masks."""
        return probe.classes is not None or probe.has_masks
