"""Targets: the score that is explained."""

from __future__ import annotations

from lightning_gradcam.targets.classes import ClassScore, check_classes, class_target, freeze_classes, select_rows
from lightning_gradcam.targets.composite import (
    EachLabel,
    Margin,
    TopK,
    freeze_target,
    is_dynamic,
    list_class_scores,
    split_target,
)
from lightning_gradcam.targets.detection import BoxScore, as_list
from lightning_gradcam.targets.embeddings import CosineSimilarity, EmbeddingNorm
from lightning_gradcam.targets.logits import are_probabilities, find_logits, require_logits
from lightning_gradcam.targets.registry import TARGETS, coerce_target, target_name, with_labels
from lightning_gradcam.targets.segmentation import SegmentationScore

__all__ = [
    "TARGETS",
    "BoxScore",
    "ClassScore",
    "CosineSimilarity",
    "EachLabel",
    "EmbeddingNorm",
    "Margin",
    "SegmentationScore",
    "TopK",
    "are_probabilities",
    "as_list",
    "check_classes",
    "class_target",
    "coerce_target",
    "find_logits",
    "freeze_classes",
    "freeze_target",
    "is_dynamic",
    "list_class_scores",
    "require_logits",
    "select_rows",
    "split_target",
    "target_name",
    "with_labels",
]
