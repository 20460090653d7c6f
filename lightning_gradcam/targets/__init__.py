"""Which score is explained."""

from __future__ import annotations

from lightning_gradcam.targets.classes import ClassScore, check_classes, for_rows, given, held
from lightning_gradcam.targets.composite import EachLabel, Margin, TopK, class_scores, held_to, moves, parts_of
from lightning_gradcam.targets.embeddings import CosineSimilarity, EmbeddingNorm
from lightning_gradcam.targets.logits import are_probabilities, find_logits, logits_of
from lightning_gradcam.targets.registry import TARGETS, coerce_target, target_name, with_labels

__all__ = [
    "TARGETS",
    "ClassScore",
    "CosineSimilarity",
    "EachLabel",
    "EmbeddingNorm",
    "Margin",
    "TopK",
    "are_probabilities",
    "check_classes",
    "class_scores",
    "coerce_target",
    "find_logits",
    "for_rows",
    "given",
    "held",
    "held_to",
    "logits_of",
    "moves",
    "parts_of",
    "target_name",
    "with_labels",
]
