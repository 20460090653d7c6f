"""Several heads and several labels: which of them belong together."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradcam.targets.output_kinds.clues import OutputClues
from lightning_gradcam.targets.output_kinds.label_clues import LabelClues
from lightning_gradcam.targets.output_kinds.parts import Vector, get_role


def match_heads(vectors: Sequence[Vector], clues: OutputClues) -> tuple[Vector, str | None]:
    """Choose the part of an output to explain and its labels.

    The first part counts, unless the labels belong to another one: by its name, because it has as many classes as the
    data or the model, or because only the classes of the other include them.

    Args:
        vectors: The parts, at least one, in the order in which they are tried.
        clues: What else is known; of its labels those of images count.

    Returns:
        The part, and the name of its labels, "" if there are none or no choice, and None if all have the names of other
        parts.

    >>> color, kind = Vector("color", 3), Vector("kind", 5)
    >>> labels = [LabelClues(name, "classes", (), 0, high) for name, high in (("y.kind", 4), ("y.color", 2))]
    >>> vector, label_name = match_heads([color, kind], OutputClues(labels))
    >>> vector.name, label_name
    ('color', 'y.color')
    """
    labels = [label for label in clues.labels if label.kind in ("classes", "multilabel")]
    vector = _choose_vector(vectors, labels, clues)
    foreign = {part.role for part in vectors if part is not vector}
    foreign |= set(map(get_role, vector.siblings))
    usable = [label for label in labels if label.role not in foreign - {"", vector.role}]
    if labels and not usable:
        return vector, None
    label = _choose_label(vector, usable)
    return vector, label.name if label is not None and len(labels) > 1 else ""


def fits(label: LabelClues, width: int) -> bool:
    """Return whether labels can be classes of an output of this width; a single logit has two classes."""
    if label.kind == "multilabel":
        return label.shape == (width,)
    return label.kind == "classes" and label.high < max(width, 2)


def _choose_vector(vectors: Sequence[Vector], labels: Sequence[LabelClues], clues: OutputClues) -> Vector:
    """Choose the first part, unless there are clues to another one, see `match_heads`."""
    candidates = [vector for vector in vectors if not vector.embeds] or list(vectors)
    if candidates[0].name == "logits":
        return candidates[0]
    roles = {label.role for label in labels} - {""}
    of_role = [vector for vector in candidates if vector.role in roles]
    counts = {clues.num_classes, clues.model_classes}
    of_count = [vector for vector in candidates if max(vector.width, 2) in counts]
    fitting = [vector for vector in candidates if any(fits(label, vector.width) for label in labels)]
    return (of_role or of_count or fitting or candidates)[0]


def _choose_label(vector: Vector, labels: Sequence[LabelClues]) -> LabelClues | None:
    """Choose the labels with the part's name, else those whose classes are as many, else the first that fit."""
    fitting = [label for label in labels if fits(label, vector.width)]
    of_role = [label for label in labels if vector.role and label.role == vector.role]
    exact = [label for label in fitting if label.kind == "classes" and label.high == max(vector.width, 2) - 1]
    return next(iter(of_role or exact or fitting), None)
