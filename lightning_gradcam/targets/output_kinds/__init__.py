"""Kinds of model output, and the meaning of a class in each; a file per kind.

`find_output_kind` decides the kind from evidence: what the output looks like (`parts`), and what labels, losses and
data say (`clues`). The user's choice comes first (`choose`).
"""

from __future__ import annotations

from lightning_gradcam.targets.output_kinds.base import OutputKind
from lightning_gradcam.targets.output_kinds.classification import PROBABILITIES_NOTE, ClassificationOutput
from lightning_gradcam.targets.output_kinds.clues import OutputClues
from lightning_gradcam.targets.output_kinds.decide import find_output_kind
from lightning_gradcam.targets.output_kinds.detection import DetectionOutput
from lightning_gradcam.targets.output_kinds.embedding import EmbeddingOutput
from lightning_gradcam.targets.output_kinds.image import ImageOutput
from lightning_gradcam.targets.output_kinds.names import OUTPUT_NAMES, OutputName, check_output_name
from lightning_gradcam.targets.output_kinds.regression import RegressionOutput
from lightning_gradcam.targets.output_kinds.segmentation import SegmentationOutput
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput

OUTPUT_KINDS: tuple[type[OutputKind], ...] = (
    ClassificationOutput,
    RegressionOutput,
    EmbeddingOutput,
    SegmentationOutput,
    ImageOutput,
    DetectionOutput,
    UnknownOutput,
)
"""All kinds."""

__all__ = [
    "OUTPUT_KINDS",
    "OUTPUT_NAMES",
    "PROBABILITIES_NOTE",
    "ClassificationOutput",
    "DetectionOutput",
    "EmbeddingOutput",
    "ImageOutput",
    "OutputClues",
    "OutputKind",
    "OutputName",
    "RegressionOutput",
    "SegmentationOutput",
    "UnknownOutput",
    "check_output_name",
    "find_output_kind",
]
