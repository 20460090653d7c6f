"""The kind that the user chose with the argument ``output``."""

from __future__ import annotations

from dataclasses import replace

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.targets.output_kinds.base import OutputKind
from lightning_gradcam.targets.output_kinds.classification import ClassificationOutput
from lightning_gradcam.targets.output_kinds.clues import OutputClues
from lightning_gradcam.targets.output_kinds.detection import DetectionOutput
from lightning_gradcam.targets.output_kinds.embedding import EmbeddingOutput
from lightning_gradcam.targets.output_kinds.image import ImageOutput
from lightning_gradcam.targets.output_kinds.match_heads import match_heads
from lightning_gradcam.targets.output_kinds.parts import OutputParts
from lightning_gradcam.targets.output_kinds.regression import RegressionOutput
from lightning_gradcam.targets.output_kinds.segmentation import SegmentationOutput
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput


def choose_kind(parts: OutputParts, clues: OutputClues) -> OutputKind:
    """Create the kind that the user chose for an output.

    Raises:
        NotExplainableError: The output has no part of this kind.
    """
    kind = _create(parts, clues)
    if kind is None:
        shapes = {
            "detection": "one mapping per image with 'boxes', 'labels' and 'scores'",
            "segmentation": "scores of shape (N, classes, *spatial)",
            "image": "values of shape (N, channels, *spatial)",
        }
        raise NotExplainableError(
            f"`output={clues.choice!r}` needs {shapes.get(clues.choice, 'numbers of shape (N, K)')} in the model's "
            f"output, but it is a {parts.type_name} without these. Pass `forward=`, a callable of (model, probe) "
            "that returns them."
        )
    return replace(kind, reason="`output` says so", is_chosen=True)


def _create(parts: OutputParts, clues: OutputClues) -> OutputKind | None:
    """Create the chosen kind; None if the output has no such part."""
    choice = clues.choice
    if choice == "other":
        return UnknownOutput()
    if choice == "detection":
        return DetectionOutput() if parts.has_boxes else None
    if choice in ("segmentation", "image"):
        if not parts.maps:
            return None
        channels = parts.maps[0].channels
        label = next((label.name for label in clues.labels if label.kind == "masks"), "")
        is_image = choice == "image"
        return ImageOutput(channels=channels) if is_image else SegmentationOutput(max(channels, 2), label_name=label)
    if not parts.vectors:
        return None
    vector, label_name = match_heads(parts.vectors, clues)
    head = vector.name if parts.needs_head else ""
    if choice == "classes":
        return ClassificationOutput(max(vector.width, 2), head=head, label_name=label_name)
    if choice == "regression":
        return RegressionOutput(head=head, num_values=vector.width)
    return EmbeddingOutput(head=head, width=vector.width)
