"""Registry of targets by name, and conversion of the ``target`` argument."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.classes import ClassScore, class_target, label, positives, predicted
from lightning_gradcam.targets.composite import EachLabel, Margin, TopK
from lightning_gradcam.targets.embeddings import CosineSimilarity, EmbeddingNorm
from lightning_gradcam.utils.registry import Registry

MAX_LABEL_MAPS = 3
"""Number of an image's labels that have maps of their own by default."""

TARGETS = Registry[Target]("target")
"""Targets by name; ``TARGETS.register("name")(target)`` adds one."""

TARGETS.register("predicted")(ClassScore(predicted, "predicted class", is_dynamic=True))
TARGETS.register("label")(ClassScore(label, "label"))
TARGETS.register("positives")(ClassScore(positives, "sum of the labels"))
TARGETS.register("topk")(TopK())
TARGETS.register("margin")(Margin())
TARGETS.register("cosine")(CosineSimilarity())
TARGETS.register("norm")(EmbeddingNorm())


def coerce_target(target: str | int | Sequence[int] | Tensor | Target) -> Target:
    """Return the target of that name, of these classes, or the callable itself.

    Raises:
        ValueError: No target has that name.
        TypeError: ``target`` is of another type.
    """
    if isinstance(target, str):
        return TARGETS.resolve(target)
    if callable(target) and not isinstance(target, Tensor):
        return target
    return class_target(target)


def target_name(target: Target) -> str:
    """Return a target's name in figures.

    >>> target_name(TARGETS["label"]), target_name(class_target(3))
    ('label', 'class 3')
    """
    return str(getattr(target, "name", None) or getattr(target, "__name__", type(target).__name__))


def with_labels(target: Target, probe: Probe) -> Target:
    """Replace ``"label"`` for multi-label images by each of their labels. (Waits for the device.)"""
    if target is not TARGETS["label"] or not probe.multilabel or probe.labels is None:
        return target
    most = int((probe.labels > 0).sum(1).max())
    return EachLabel(min(max(most, 1), MAX_LABEL_MAPS))
