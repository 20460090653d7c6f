"""Result of an explanation: signed evidence, the status of each map, and the scores explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation

REFERENCE = "reference"
"""Suffix of the keys of the second image of a pair."""


class FieldKind(Enum):
    """Kind of a field of `Explanation`, which decides how explanations of several scores merge it.

    Every field names its kind in its metadata, so that `Explanation.map`, `cat` and the merges treat all of them.
    """

    PER_MAP = auto()
    """A mapping by map key: layer, method and score."""
    PER_SCORE = auto()
    """A mapping by the name of a score."""
    OF_SINGLE_SCORE = auto()
    """A tensor that is kept only where one score is explained."""
    SHARED = auto()
    """The same value for all scores; the first score's is kept."""


def _merge(values: list[Any], merge: Callable[[list[Tensor]], Tensor]) -> Any:
    """Merge the values that one field has in several explanations: each tensor by ``merge``, else keep the first."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _merge([value[key] for value in values], merge) for key in first}
    return merge(values) if isinstance(first, Tensor) else first


@dataclass(frozen=True)
class Explanation:
    """Evidence for a score in each image of a probe.

    Mappings have one key per layer, or ``"layer/method"`` if several methods ran. If a target explains several scores,
    or both images of a pair, the keys end in their names: ``"layer/top 1"``, ``"layer/reference"``. Tensors are on the
    images' device.

    Args:
        evidence: ``(N, *s)`` float32, signed, before the final ReLU, on the layer's own grid.
        logits: The model's logits for the images, ``(N, K)`` float32; K is 0 if it returns none.
        classes: ``(N,)`` the classes explained; None if the target is not a class. For several scores, the classes of
            the first one.
        size: The images' spatial dimensions.
        layers: The layer of each map.
        map_status: ``(N,)`` uint8 per key, each a `MapStatus`.
        explained: The classes that the target selected, see `targets.ClassScore`, by the suffix of the keys: ``"top
            1"``, or ``""`` for a single score; empty if the target is not a class.
        scores: ``(N,)`` the scores explained, by the suffix of the keys.
        photos: ``(N, C, *spatial)`` the images as pixels in [0, 1]; None if their normalization is unknown, or if they
            were not requested.
        region: ``(N, *spatial)`` bool: for a class of pixels, the pixels whose scores are explained; else None.
        centers: The centers of the cells of each map in the image; maps without an entry cover it evenly.
    """

    evidence: Mapping[str, Tensor] = field(metadata={"kind": FieldKind.PER_MAP})
    logits: Tensor = field(metadata={"kind": FieldKind.SHARED})
    classes: Tensor | None = field(metadata={"kind": FieldKind.SHARED})
    size: tuple[int, ...] = field(metadata={"kind": FieldKind.SHARED})
    layers: Mapping[str, Layer] = field(default_factory=dict, metadata={"kind": FieldKind.PER_MAP})
    map_status: Mapping[str, Tensor] = field(default_factory=dict, metadata={"kind": FieldKind.PER_MAP})
    explained: Mapping[str, Tensor] = field(default_factory=dict, metadata={"kind": FieldKind.PER_SCORE})
    scores: Mapping[str, Tensor] = field(default_factory=dict, metadata={"kind": FieldKind.PER_SCORE})
    photos: Tensor | None = field(default=None, metadata={"kind": FieldKind.SHARED})
    region: Tensor | None = field(default=None, metadata={"kind": FieldKind.OF_SINGLE_SCORE})
    centers: Mapping[str, CellCenters] = field(default_factory=dict, metadata={"kind": FieldKind.PER_MAP})

    @property
    def degenerate(self) -> Mapping[str, tuple[str | None, ...]]:
        """The reason per image why its map cannot be interpreted, or None. (Access waits for the device.)"""
        return {key: tuple(MapStatus(code).text for code in codes.tolist()) for key, codes in self.map_status.items()}

    @property
    def maps(self) -> Mapping[str, Tensor]:
        """``(N, *s)`` float32 class activation maps: ``relu(evidence)``, at their own magnitude."""
        return {key: evidence.relu() for key, evidence in self.evidence.items()}

    def find_score_name(self, key: str) -> str:
        """Return the name in `scores` that a map's key ends in; "" for a single score."""
        return next((name for name in self.scores if name and key.endswith(f"/{name}")), "")

    def map(self, change: Callable[[Tensor], Tensor]) -> Explanation:
        """Apply ``change`` to each tensor; all are ``(N, ...)``."""
        return Explanation(**{f.name: _merge([getattr(self, f.name)], lambda t: change(t[0])) for f in fields(self)})

    @staticmethod
    def cat(explanations: Sequence[Explanation]) -> Explanation:
        """Concatenate explanations of consecutive images of a probe.

        >>> one = Explanation({"a": torch.ones(1, 2, 2)}, torch.zeros(1, 3), None, (4, 4))
        >>> Explanation.cat([one, one]).evidence["a"].shape
        torch.Size([2, 2, 2])
        """
        by_field = {f.name: [getattr(explanation, f.name) for explanation in explanations] for f in fields(Explanation)}
        return Explanation(**{name: _merge(values, torch.cat) for name, values in by_field.items()})

    @staticmethod
    def merge_scores(by_score: Mapping[str, Explanation]) -> Explanation:
        """Merge explanations of several scores of the same images.

        Args:
            by_score: The explanations by the suffix that their keys get; "" for none.

        >>> one = Explanation({"a": torch.ones(1, 2, 2)}, torch.zeros(1, 3), None, (4, 4), scores={"": torch.ones(1)})
        >>> list(Explanation.merge_scores({"top 1": one, "top 2": one}).evidence)
        ['a/top 1', 'a/top 2']
        """
        first = next(iter(by_score.values()))

        def merge(name: str, kind: FieldKind) -> Any:
            values = {score: getattr(explanation, name) for score, explanation in by_score.items()}
            match kind:
                case FieldKind.PER_MAP:
                    return {
                        f"{key}/{score}" if score else key: value[key]
                        for key in first.evidence
                        for score, value in values.items()
                        if key in value
                    }
                case FieldKind.PER_SCORE:
                    return {score: value[""] for score, value in values.items() if value}
                case FieldKind.OF_SINGLE_SCORE:
                    return getattr(first, name) if len(values) == 1 else None
                case FieldKind.SHARED:
                    return getattr(first, name)

        return Explanation(**{f.name: merge(f.name, f.metadata["kind"]) for f in fields(Explanation)})

    def split_pairs(self) -> Explanation:
        """Split a batch of images followed by their references: the references' maps get keys of their own.

        >>> both = Explanation({"a": torch.tensor([[[1.0]], [[2.0]]])}, torch.zeros(2, 0), None, (4, 4))
        >>> both.split_pairs().evidence
        {'a': tensor([[[1.]]]), 'a/reference': tensor([[[2.]]])}
        """
        half = len(self.logits) // 2
        images, references = self.map(lambda tensor: tensor[:half]), self.map(lambda tensor: tensor[half:])
        merged = Explanation.merge_scores({"": images, REFERENCE: references})
        # Both images of a pair share their scores.
        per_score = {f.name: getattr(images, f.name) for f in fields(self) if f.metadata["kind"] is FieldKind.PER_SCORE}
        return replace(merged, **per_score)

    def heatmaps(
        self,
        size: tuple[int, ...] | None = None,
        scale: float | Tensor | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> Mapping[str, Tensor]:
        """Return maps for display, resized to ``(N, *size)``, in [0, 1]; a degenerate map is 0 everywhere.

        Args:
            size: By default the images' size.
            scale: None stretches every map from its minimum to its maximum, as pytorch-grad-cam does. A number is the
                magnitude that becomes 1 in all images; larger values are clipped.
            interpolation: ``"bilinear"`` (linear in one dimension, trilinear in three), ``"nearest"``, which shows the
                cells that were computed, or ``"bicubic"``, for images only.

        Raises:
            ValueError: The interpolation does not exist in this number of dimensions, ``size`` has another number of
                dimensions than the images, or ``scale`` is not positive.
        """
        dimensions = len(self.size)
        target_size = self.size if size is None else size
        is_size = isinstance(target_size, Sequence) and len(target_size) == dimensions
        if not is_size or not all(side > 0 for side in target_size):
            raise ValueError(f"Expected `size` of {dimensions} positive numbers, as {self.size}, but got {size!r}.")
        if isinstance(scale, (int, float)) and not scale > 0:  # checking a tensor would wait for the device
            raise ValueError(f"Expected `scale` to be None or a positive number, but got {scale!r}.")
        return {
            key: to_heatmaps(evidence, self.map_status[key], target_size, scale, interpolation, self.centers.get(key))
            for key, evidence in self.evidence.items()
        }
