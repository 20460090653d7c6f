"""Boxes of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore
from lightning_gradcam.targets.detection import BoxScore, score_largest_box, score_smallest_box, sum_box_scores
from lightning_gradcam.targets.output_kinds.base import OutputKind
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.padding import ImageFraction, crop_centers, crop_padding, find_image_fraction
from lightning_gradcam.utils.cell_centers import CellCenters


@dataclass(frozen=True)
class DetectionOutput(OutputKind):
    """Boxes of each image.

    Args:
        num_classes: None, since boxes name only the classes that were detected.
        image_fraction: Fraction of a layer's grid that the image covers.
    """

    image_fraction: ImageFraction = ()

    name: ClassVar[OutputName] = "detection"
    has_classes: ClassVar[bool] = True
    refining_scores: ClassVar[tuple[Target, ...]] = (score_smallest_box, score_largest_box)

    def describe(self) -> str:
        """Return that there are boxes."""
        return "boxes of each image"

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

    def locate_centers(self, centers: CellCenters, grid: Sequence[int]) -> CellCenters:
        """Return the centers of the cells that remain."""
        return crop_centers(centers, grid, self.image_fraction)

    def has_labels(self, probe: Probe) -> bool:
        """Return whether the probe has a class per image."""
        return probe.classes is not None
