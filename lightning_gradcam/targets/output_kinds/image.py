"""Values at each position, such as an image, depths or heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.composite import list_class_scores
from lightning_gradcam.targets.output_kinds.base import OutputKind, refuse_classes, weigh_columns
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.output_kinds.pixel_layers import mark_pixel_layers
from lightning_gradcam.targets.registry import target_name
from lightning_gradcam.targets.segmentation import require_pixel_scores

PIXEL_REMEDY = (
    "Pass `target=`, a callable of (output, probe) that returns one score per image, such as "
    "`lambda output, probe: output[:, 0].flatten(1).mean(1)`, or `output='segmentation'` if the channels are scores of "
    "classes at each pixel."
)


@dataclass(frozen=True)
class ImageOutput(OutputKind):
    """Values ``(N, channels, *spatial)`` that are not scores of classes: the user says which of them to explain.

    Args:
        channels: Number of channels.
    """

    channels: int = 1

    name: ClassVar[OutputName] = "image"

    def describe(self) -> str:
        """Return the number of channels."""
        return f"an image of {self.channels} {'channel' if self.channels == 1 else 'channels'}"

    def trace_score(self, output: Any, probe: Probe) -> Tensor:
        """Compute the weighted sum of all channels over all pixels."""
        return weigh_columns(require_pixel_scores(output, len(probe.size)).flatten(2).sum(2))

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Refuse targets that explain classes."""
        if list_class_scores(target):
            raise refuse_classes(self, target_name(target), PIXEL_REMEDY)
        return super().validate(target, output, probe)

    def mark_outputs(self, records: Sequence[LayerRecord], output: Any, probe: Probe) -> tuple[LayerRecord, ...]:
        """Mark the last layers with the channels of the output."""
        return mark_pixel_layers(records, output, probe)
