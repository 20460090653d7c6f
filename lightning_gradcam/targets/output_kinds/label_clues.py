"""What the labels of a probe, or other tensors that come with its images, may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from lightning_gradcam.probe.image_lists import NEVER_LABELS
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.output_kinds.parts import get_role

LabelKind: TypeAlias = Literal["classes", "multilabel", "masks", "values", "shares"]
"""A class per image; a 0 or 1 per class; a class per pixel; numbers; or numbers that sum to 1."""

_IGNORED_MASK = 255
"""The number that masks have where the loss ignores a pixel, besides negative ones."""

_MOST_NUMBERS = 1 << 24
"""Numbers of a tensor that are read; of a larger one its first rows are."""


@dataclass(frozen=True)
class LabelClues:
    """What the labels of a probe, or another tensor that comes with its images, may be.

    Args:
        name: Its key or position in the batch, or "" for labels that were passed.
        kind: See `LabelKind`.
        shape: Shape of a row.
        low: The least number that is not ignored.
        high: The largest number that is not ignored.
        dtype: Its dtype in words, for messages.
    """

    name: str
    kind: LabelKind
    shape: tuple[int, ...]
    low: float = 0
    high: float = 0
    dtype: str = ""

    @property
    def role(self) -> str:
        """What the labels are for, from their name, such as "kind" for "kind_label"; "" without a name."""
        return get_role(self.name)

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        if self.kind == "masks":
            return f"labels{name} are masks"
        if self.kind == "classes":
            return f"labels{name} are integers from {self.low:.0f} to {self.high:.0f}"
        if self.kind == "multilabel":
            return f"labels{name} are a 0 or 1 for each of {self.shape[0]} classes"
        return f"labels{name} are {self.dtype}"


def read_labels(probe: Probe, label_name: str = "", with_extras: bool = False) -> tuple[LabelClues, ...]:
    """Describe the labels of a probe. (Waits for the device.)

    Args:
        probe: All images.
        label_name: The labels' key or position in the batch.
        with_extras: Whether the extras come from batches, and may be labels.

    >>> import torch
    >>> read_labels(Probe(torch.rand(2, 3, 8, 8), labels=torch.tensor([0, 4])))[0].high
    4.0
    """
    clues = [] if probe.labels is None else [_read_label(label_name, probe.labels, probe)]
    if with_extras:
        names = [name for name in probe.extras if name.split(".")[-1].lower() not in NEVER_LABELS]
        clues += [_read_label(name, probe.extras[name], probe) for name in names if name != label_name]
    return tuple(clue for clue in clues if clue is not None)


def _read_label(name: str, tensor: Tensor, probe: Probe) -> LabelClues | None:
    """Describe one tensor that comes with the images; None if it cannot be labels."""
    if tensor.is_complex() or not tensor.numel():
        return None
    shape = tuple(tensor.shape[1:])
    tensor = tensor[: max(_MOST_NUMBERS * len(tensor) // tensor.numel(), 1)]
    row = () if shape == (1,) else shape
    is_spatial = len(probe.size) > 1 and (shape == probe.size or shape == (1, *probe.size))
    values = tensor.float().nan_to_num(0.5, 0.5, 0.5)
    is_binary = bool(((values == 0) | (values == 1)).all())
    dtype = str(tensor.dtype).removeprefix("torch.")
    if not tensor.is_floating_point() or is_binary:
        counted = values[(values >= 0) & (values != _IGNORED_MASK)] if is_spatial else values[values >= 0]
        low, high = (float(counted.min()), float(counted.max())) if counted.numel() else (0.0, 0.0)
        if is_spatial:
            return LabelClues(name, "masks", probe.size, low, high, dtype)
        if not row:
            return LabelClues(name, "classes", (), low, high, dtype)
        if len(row) == 1 and is_binary:
            return LabelClues(name, "multilabel", row, low, high, dtype)
    if bool((values >= 0).all()) and row and bool(((values.sum(1) - 1).abs() < 1e-3).all()):
        return LabelClues(name, "shares", row, dtype=dtype)
    if is_binary or bool(((values == values.round()) & (values.abs() <= 1)).all()):
        return None  # 0 and 1, or -1, 0 and 1: of classes or of a heatmap
    return LabelClues(name, "values", row, float(values.min()), float(values.max()), dtype)
