"""What a row of numbers per image is: logits, the values of a regression, or an embedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from lightning_gradcam.targets.output_kinds.base import OutputKind
from lightning_gradcam.targets.output_kinds.classification import ClassificationOutput
from lightning_gradcam.targets.output_kinds.clues import OutputClues
from lightning_gradcam.targets.output_kinds.embedding import EmbeddingOutput
from lightning_gradcam.targets.output_kinds.match_heads import fits
from lightning_gradcam.targets.output_kinds.parts import Vector
from lightning_gradcam.targets.output_kinds.regression import RegressionOutput
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput

UNDECIDED_VALUE = "nothing tells that it is the logit of a class"
DEFAULT_CLASSES = "nothing speaks against it"


def decide_vector(vector: Vector, clues: OutputClues, head: str = "", label_name: str | None = "") -> OutputKind:
    """Decide what a row of numbers per image is.

    Args:
        vector: The numbers.
        clues: What else is known.
        head: The name of this part of the output, "" if there is no choice.
        label_name: The labels that belong to it, see `OutputKind`.
    """
    own_first = sorted(clues.labels, key=lambda label: label.name != label_name)
    clues = replace(clues, labels=own_first)
    for rule in RULES:
        decision = rule(vector, clues)
        if decision is not None:
            break
    else:
        decision = _decide_by_default(vector, clues)
    kind, reason = decision
    return _create(kind, vector, reason, head, label_name)


Decision = tuple[str, str]
"""The name of a kind and the reason; of the kind "other" why it is undecided."""


def see_embedding(vector: Vector, clues: OutputClues) -> Decision | None:
    """Decide by the name or the length of the vectors, or by a loss of embeddings."""
    if vector.embeds:
        return "embedding", vector.embeds
    if clues.loss == "embeddings" and vector.width > 1:
        return "embedding", f"training uses {clues.losses['embeddings']}"
    return None


def see_unused_classifier(vector: Vector, clues: OutputClues) -> Decision | None:
    """Decide by a classifier that takes these vectors, but runs in training only."""
    if vector.width < 2 or clues.num_classes == vector.width:
        return None
    highest = max((int(label.high) for label in clues.labels if label.kind == "classes"), default=-1)
    counts = {highest + 1, clues.num_classes} - {0, 1, None}
    for classifier in clues.classifiers:
        is_possible = classifier.is_certain and classifier.num_classes > max(highest, 1)
        if classifier.width == vector.width and (is_possible or classifier.num_classes in counts):
            return "embedding", f"{classifier.name!r} turns it into {classifier.num_classes} classes in training"
    return None


def see_class_labels(vector: Vector, clues: OutputClues) -> Decision | None:
    """Decide by integer labels: their range, and a loss that takes them for numbers."""
    labels = [label for label in clues.labels if label.kind in ("classes", "multilabel")]
    fitting = [label for label in labels if fits(label, vector.width)]
    if fitting:
        has_classes = vector.width > 1 and (vector.is_probability or vector.width == clues.model_classes)
        if clues.loss != "values" or has_classes:  # a classifier may also learn the squared error of its probabilities
            return "classes", str(fitting[0])
        if vector.width == 1:
            return "regression", f"training uses {clues.losses['values']}"
        return "other", f"{fitting[0]}, while training uses {clues.losses['values']}"
    classes = [label for label in labels if label.kind == "classes"]
    if not classes or clues.loss == "classes" or (clues.names_class and vector.width > 1):
        return None
    return ("regression" if vector.width == 1 else "other"), str(classes[0])


def see_number_labels(vector: Vector, clues: OutputClues) -> Decision | None:
    """Decide by labels that are numbers, as many per image as the output has, or shares of classes."""
    for label in clues.labels:
        if label.kind == "shares" and label.shape == (vector.width,):
            return "classes", f"{label} that sum to 1"
        if label.kind == "values" and math.prod(label.shape) == vector.width and clues.loss != "classes":
            return "regression", str(label)
    single = [label for label in clues.labels if label.kind == "values" and not label.shape]
    if single and clues.loss is None and not clues.losses:
        return "other", f"{single[0]}, one number per image"
    return None


def see_loss(vector: Vector, clues: OutputClues) -> Decision | None:  # noqa: ARG001  # a rule
    """Decide by the loss of the training."""
    if clues.loss in ("values", "classes"):
        return ("regression" if clues.loss == "values" else "classes"), f"training uses {clues.losses[clues.loss]}"
    return None


def see_probabilities(vector: Vector, clues: OutputClues) -> Decision | None:
    """Decide by a softmax or sigmoid at the end, or by as many classes in the data or the model."""
    if vector.is_probability:
        return "classes", f"it ends in a {'sigmoid' if vector.width == 1 else 'softmax or sigmoid'}"
    for holder, count in (("data", clues.num_classes), ("model", clues.model_classes)):
        if count is not None and count == max(vector.width, 2):
            return "classes", f"the {holder} has {count} classes"
    return None


def see_features(vector: Vector, clues: OutputClues) -> Decision | None:
    """Decide by what a model without a classifier returns."""
    if vector.width > 1 and clues.model_classes == 0:
        return "embedding", "the model has 0 classes"
    if vector.width > 1 and vector.is_normalized:
        return "embedding", "it comes right from a layer normalization"
    return None


RULES: Sequence[Callable[[Vector, OutputClues], Decision | None]] = (
    see_embedding,
    see_unused_classifier,
    see_class_labels,
    see_number_labels,
    see_loss,
    see_probabilities,
    see_features,
)
"""The rules in the order of their weight."""


def _decide_by_default(vector: Vector, clues: OutputClues) -> Decision:
    """Decide where nothing is known: several numbers are logits, and of a single one it remains open."""
    if vector.width > 1:
        return "classes", DEFAULT_CLASSES
    return ("classes", "`target` names one") if clues.names_class else ("regression", UNDECIDED_VALUE)


def _create(name: str, vector: Vector, reason: str, head: str, label_name: str | None) -> OutputKind:
    """Create the kind of a name."""
    match name:
        case "classes":
            return ClassificationOutput(max(vector.width, 2), reason, head, label_name)
        case "regression":
            return RegressionOutput(None, reason, head, num_values=vector.width)
        case "embedding":
            return EmbeddingOutput(None, reason, head, width=vector.width)
        case _:
            return UnknownOutput(reason=reason, head=head, refusal=_refuse(vector, reason))


def _refuse(vector: Vector, reason: str) -> str:
    """Return the sentence for a row of numbers that is not read as classes."""
    return (
        f"The model returns {vector.width} numbers per image and {reason}, so it is open whether they are logits of "
        "classes. Pass `output='classes'`, 'regression' or 'embedding', or `target=`, a callable of (output, probe) "
        "that returns one score per image."
    )
