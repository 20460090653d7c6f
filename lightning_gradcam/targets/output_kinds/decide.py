"""The kind of a model's output, decided from what can be seen in it and from what else is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.output_kinds.base import OutputKind
from lightning_gradcam.targets.output_kinds.choose import choose_kind
from lightning_gradcam.targets.output_kinds.classification import ClassificationOutput
from lightning_gradcam.targets.output_kinds.clues import OutputClues
from lightning_gradcam.targets.output_kinds.decide_map import decide_map
from lightning_gradcam.targets.output_kinds.decide_vector import decide_vector
from lightning_gradcam.targets.output_kinds.detection import DetectionOutput
from lightning_gradcam.targets.output_kinds.image import ImageOutput
from lightning_gradcam.targets.output_kinds.label_clues import LabelClues, read_labels
from lightning_gradcam.targets.output_kinds.match_heads import fits, match_heads
from lightning_gradcam.targets.output_kinds.parts import DenseMap, OutputParts, Vector, describe_output
from lightning_gradcam.targets.output_kinds.segmentation import SegmentationOutput
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput

_DETECTOR_ROUTE = (
    "These are rows per object query, as of a detector: pass `target=`, a callable of (output, probe) that returns one "
    "score per image, such as the best score of a class over all queries; or `forward=`, a callable of (model, probe) "
    "that returns one mapping per image with 'boxes', 'labels' and 'scores', which are explained as detections."
)


def find_output_kind(output: Any, probe: Probe, clues: OutputClues | None = None) -> OutputKind:
    """Decide the kind of a model's output for the images of ``probe``. (Waits for the device.)

    Args:
        output: What the model returned.
        probe: The images.
        clues: What else is known; by default the probe's labels.

    Raises:
        NotExplainableError: The output has no part of the kind that the user chose.

    >>> import torch
    >>> probe = Probe(torch.rand(2, 3, 8, 8))
    >>> for output in (torch.rand(2, 5), {"out": torch.rand(2, 5, 8, 8)}, torch.rand(2, 1), []):
    ...     print(find_output_kind(output, probe).describe())
    logits of 5 classes
    scores of 5 classes at each pixel
    a regression of one value
    numbers without classes
    """
    clues = OutputClues(labels=read_labels(probe)) if clues is None else clues
    return OutputReading(describe_output(output, probe), clues).decide(probe)


@dataclass(frozen=True)
class OutputReading:
    """What the kind of an output was decided from, to decide again when more is known.

    Args:
        parts: The parts of the output.
        clues: What else is known.
    """

    parts: OutputParts
    clues: OutputClues

    def decide(self, probe: Probe) -> OutputKind:
        """Return the kind that the user chose, or infer it.

        Raises:
            NotExplainableError: The output has no part of the kind that the user chose.
        """
        if self.clues.choice != "auto":
            return choose_kind(self.parts, self.clues)
        return infer_kind(self.parts, probe, self.clues)

    def update(
        self, kind: OutputKind, probe: Probe, labels: Sequence[LabelClues], num_classes: int | None
    ) -> OutputKind:
        """Return the kind with more labels, or a number of classes in the data; a kind that was chosen stays."""
        if kind.is_chosen or self.parts.has_boxes:
            return kind
        return infer_kind(self.parts, probe, replace(self.clues, labels=labels, num_classes=num_classes))


def infer_kind(parts: OutputParts, probe: Probe, clues: OutputClues) -> OutputKind:
    """Infer the kind of an output from its parts and from what else is known."""
    if parts.has_boxes:
        return DetectionOutput(reason="it is one mapping of boxes, labels and scores per image")
    dense = None
    if parts.maps:
        has_owner = any(fits(label, vector.width) for label in clues.labels for vector in parts.vectors)
        of_pixels = [label for label in clues.labels if not (has_owner and label.kind == "classes")]
        dense = decide_map(parts.maps[0], probe, replace(clues, labels=of_pixels), parts.maps[1:])
    if not parts.vectors:
        if dense is not None:
            return dense
        refusal = f"The output has {parts.queries}. {_DETECTOR_ROUTE}" if parts.queries else ""
        return UnknownOutput(refusal=refusal, is_readable=False)
    vector, label_name = match_heads(parts.vectors, clues)
    kind = decide_vector(vector, clues, vector.name if parts.needs_head else "", label_name)
    return kind if dense is None else _decide_between(parts.vectors, parts.maps[0], kind, dense, probe, clues)


def _decide_between(
    vectors: Sequence[Vector],
    dense_map: DenseMap,
    vector_kind: OutputKind,
    dense: OutputKind,
    probe: Probe,
    clues: OutputClues,
) -> OutputKind:
    """Decide between a vector and a dense map in one output."""
    if any(label.kind == "masks" for label in clues.labels) and isinstance(dense, SegmentationOutput):
        return dense
    if isinstance(dense, ImageOutput) and not clues.names_class:
        return dense
    is_named = vectors[0].name.split(".")[0] == "logits" or any(vector.name == "logits" for vector in vectors)
    has_labels = any(label.kind in ("classes", "multilabel") for label in clues.labels)
    is_photo = dense_map.size == probe.size and dense_map.channels in (1, probe.images.shape[1])
    is_classified = isinstance(vector_kind, ClassificationOutput) and has_labels and not is_photo
    if is_named or is_classified or dense_map.size != probe.size:
        return vector_kind
    return UnknownOutput(
        reason="it has several parts",
        refusal=(
            f"The output has {dense_map.channels} channels of the images' size and {vectors[0].width} numbers per "
            "image. Pass `output='classes'` or `output='segmentation'` to explain classes of either, or `target=`, a "
            "callable of (output, probe) that returns one score per image."
        ),
    )
