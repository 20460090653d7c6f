"""Output of which it is not known, or not relevant, what its numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.composite import list_class_scores
from lightning_gradcam.targets.logits import report_missing_logits
from lightning_gradcam.targets.output_kinds.base import OutputKind, weigh_columns
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.output_kinds.pixel_layers import mark_pixel_layers
from lightning_gradcam.targets.segmentation import find_pixel_scores
from lightning_gradcam.targets.values import find_values


@dataclass(frozen=True)
class UnknownOutput(OutputKind):
    """Output without classes, for targets that are callables or read embeddings.

    Args:
        refusal: The sentence for a target that explains classes: what the model returns, why it is not read as
            classes, and the choices.
        is_readable: Whether the output has a part that `trace_score` can read.
    """

    refusal: str = ""
    is_readable: bool = True

    name: ClassVar[OutputName] = "other"

    def describe(self) -> str:
        """Return that the output has no classes."""
        return "numbers without classes"

    def trace_score(self, output: Any, probe: Probe) -> Tensor:
        """Compute the weighted sum of all numbers, which shows what any score can depend on."""
        values = find_values(output, self.head) if self.is_readable else None
        if values is None and self.is_readable:
            pixels = find_pixel_scores(output, len(probe.size))
            values = None if pixels is None else pixels.flatten(2).sum(2)
        if values is None:
            raise self._refuse(output)
        return weigh_columns(values)

    def mark_outputs(self, records: Sequence[LayerRecord], output: Any, probe: Probe) -> tuple[LayerRecord, ...]:
        """Mark the last layers with the channels of a dense output."""
        is_dense = find_values(output, self.head) is None
        return mark_pixel_layers(records, output, probe) if is_dense else tuple(records)

    def validate(self, target: Target, output: Any, probe: Probe) -> str:
        """Refuse a target that explains classes."""
        if list_class_scores(target):
            raise self._refuse(output)
        return super().validate(target, output, probe)

    def _refuse(self, output: Any) -> NotExplainableError:
        """Return the error for a target that explains classes."""
        if self.is_chosen:
            return NotExplainableError(
                "There is no class to explain with `output='other'`. Pass `target=`, a callable of (output, probe) "
                "that returns one score per image."
            )
        return NotExplainableError(self.refusal) if self.refusal else report_missing_logits(output)
