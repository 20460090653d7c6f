"""What an explanation is: signed evidence, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.utils.interpolation import Interpolation
from lightning_gradcam.utils.numerics import CONSTANT

FLAWS: tuple[str | None, ...] = (None, "not finite", "no gradient", "all zero", "constant", "no label")
"""Why a map cannot be read. The first that applies is reported; None says that nothing is wrong."""

REFERENCE = "reference"
"""What the keys of the second side of a pair end in."""

UNASKED = FLAWS.index("no label")
"""There is nothing to explain in this image, so the map is not degenerate: it is none."""


def _changed(tensors: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {key: change(tensor) for key, tensor in tensors.items()}


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def find_status(evidence: Tensor, gradients: Tensor | None = None) -> Tensor:
    """Find the maps that cannot be read.

    Args:
        evidence: ``(N, *s)`` signed evidence.
        gradients: ``(N, ...)`` the gradients it was made from, where it was.

    Returns:
        ``(N,)`` uint8 indices into `FLAWS`, on the evidence's device.

    >>> [FLAWS[i] for i in find_status(torch.tensor([[1.0, 0.0], [-1.0, -2.0], [2.0, 2.0], [torch.nan, 0.0]]))]
    [None, 'all zero', 'constant', 'not finite']
    """
    flat = evidence.flatten(1)
    maps = flat.relu()
    low, high = maps.aminmax(dim=1)
    code = torch.zeros(len(flat), dtype=torch.uint8, device=flat.device)
    code.masked_fill_(high - low < CONSTANT * high, 4)
    code.masked_fill_(high == 0, 3)
    if gradients is not None:
        low, high = gradients.flatten(1).aminmax(dim=1)  # abs() would make a copy of all
        code.masked_fill_((low == 0) & (high == 0), 2)
    return code.masked_fill_(~flat.isfinite().all(1), 1)


def degenerate_share(codes: Tensor) -> Tensor:
    """The share of maps that cannot be read among those that were asked for, from ``(N,)`` map_status; 0-dimensional.

    >>> degenerate_share(torch.tensor([0, 3, UNASKED]))
    tensor(0.5000)
    """
    asked = codes != UNASKED
    return ((codes > 0) & asked).sum().float() / asked.sum().clamp_min(1)


@dataclass(frozen=True)
class Explanation:
    """Where the evidence for a score lies, for each image of a probe.

    Mappings have one key per layer, or ``"layer/method"`` where several methods were asked for. Where a target explains
    several scores, or both images of a pair, keys end in their names: ``"layer/top 1"``, ``"layer/reference"``. Tensors
    lie on the images' device.

    Args:
        evidence: ``(N, *s)`` float32, signed, before the final ReLU, on the layer's own grid.
        logits: What the model put out for the images, ``(N, K)`` float32.
        classes: ``(N,)`` the classes explained; None where the target was not a class. Of several scores, the first
            one's.
        size: The images' spatial dimensions.
        layers: Where the evidence was read.
        map_status: ``(N,)`` uint8 per key, indices into `FLAWS`.
        explained: What was chosen to be explained, see `targets.ClassScore`, by the end of the keys: ``"top 1"``, or
            ``""`` where there is one score; empty where that is no class.
        scores: ``(N,)`` the scores explained, by the end of the keys.
        photos: ``(N, C, *spatial)`` what was explained, as pixels in [0, 1]; None where their normalisation is not
            known, or nobody asked.
        region: ``(N, *spatial)`` bool: of a class of pixels, those whose scores are explained; else None.
    """

    evidence: Mapping[str, Tensor]
    logits: Tensor
    classes: Tensor | None
    size: tuple[int, ...]
    layers: Mapping[str, Layer] = field(default_factory=dict)
    map_status: Mapping[str, Tensor] = field(default_factory=dict)
    explained: Mapping[str, Tensor] = field(default_factory=dict)
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    photos: Tensor | None = None
    region: Tensor | None = None

    @property
    def degenerate(self) -> Mapping[str, tuple[str | None, ...]]:
        """Per image None, or why its map cannot be read. (Reading this waits for the device.)"""
        return {key: tuple(FLAWS[code] for code in codes.tolist()) for key, codes in self.map_status.items()}

    @property
    def maps(self) -> Mapping[str, Tensor]:
        """``(N, *s)`` float32 class activation maps: ``relu(evidence)``, at their own magnitude."""
        return {key: evidence.relu() for key, evidence in self.evidence.items()}

    def part(self, key: str) -> str:
        """Which of `scores` a key is of."""
        return next((part for part in self.scores if part and key.endswith(f"/{part}")), "")

    def map(self, change: Callable[[Tensor], Tensor]) -> Explanation:
        """The same with each of its tensors, all ``(N, ...)``, changed."""
        return replace(
            self,
            evidence=_changed(self.evidence, change),
            logits=change(self.logits),
            classes=None if self.classes is None else change(self.classes),
            map_status=_changed(self.map_status, change),
            explained=_changed(self.explained, change),
            scores=_changed(self.scores, change),
            photos=None if self.photos is None else change(self.photos),
            region=None if self.region is None else change(self.region),
        )

    @staticmethod
    def cat(parts: Sequence[Explanation]) -> Explanation:
        """Explanations of parts of a probe, put behind one another.

        >>> one = Explanation({"a": torch.ones(1, 2, 2)}, torch.zeros(1, 3), None, (4, 4))
        >>> Explanation.cat([one, one]).evidence["a"].shape
        torch.Size([2, 2, 2])
        """
        first = parts[0]
        return replace(
            first,
            evidence=_joined([part.evidence for part in parts]),
            logits=torch.cat([part.logits for part in parts]),
            classes=None if first.classes is None else torch.cat([p.classes for p in parts if p.classes is not None]),
            map_status=_joined([part.map_status for part in parts]),
            explained=_joined([part.explained for part in parts]),
            scores=_joined([part.scores for part in parts]),
            photos=None if first.photos is None else torch.cat([p.photos for p in parts if p.photos is not None]),
            region=None if first.region is None else torch.cat([p.region for p in parts if p.region is not None]),
        )

    @staticmethod
    def together(parts: Mapping[str, Explanation]) -> Explanation:
        """Explanations of several scores of the same images, by the ends that their keys get; "" for none.

        >>> one = Explanation({"a": torch.ones(1, 2, 2)}, torch.zeros(1, 3), None, (4, 4), scores={"": torch.ones(1)})
        >>> list(Explanation.together({"top 1": one, "top 2": one}).evidence)
        ['a/top 1', 'a/top 2']
        """
        first = next(iter(parts.values()))
        keys = [(f"{key}/{part}" if part else key, key, one) for key in first.evidence for part, one in parts.items()]
        return replace(
            first,
            evidence={whole: one.evidence[key] for whole, key, one in keys},
            map_status={whole: one.map_status[key] for whole, key, one in keys if key in one.map_status},
            layers={whole: one.layers[key] for whole, key, one in keys if key in one.layers},
            explained={part: one.explained[""] for part, one in parts.items() if one.explained},
            scores={part: one.scores[""] for part, one in parts.items() if one.scores},
            region=first.region if len(parts) == 1 else None,
        )

    def sides(self) -> Explanation:
        """Of a batch of images and behind them their references, the images' explanation with that of the references.

        >>> both = Explanation({"a": torch.tensor([[[1.0]], [[2.0]]])}, torch.zeros(2, 0), None, (4, 4))
        >>> both.sides().evidence
        {'a': tensor([[[1.]]]), 'a/reference': tensor([[[2.]]])}
        """
        half = len(self.logits) // 2
        images, references = self.map(lambda rows: rows[:half]), self.map(lambda rows: rows[half:])
        merged = Explanation.together({"": images, REFERENCE: references})
        return replace(merged, scores=images.scores, explained=images.explained)

    def heatmaps(
        self,
        size: tuple[int, ...] | None = None,
        scale: float | Tensor | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> Mapping[str, Tensor]:
        """Maps for showing, enlarged to ``(N, *size)``, in [0, 1]; a degenerate map is 0 everywhere.

        Args:
            size: By default the images'.
            scale: None stretches every map from its minimum to its maximum, as pytorch-grad-cam does. A number is the
                magnitude that becomes 1 in all images; what exceeds it is cut off.
            interpolation: ``"bilinear"`` (in one and three dimensions linear and trilinear), ``"nearest"``, which shows
                the cells that were measured, or ``"bicubic"``, for images only.

        Raises:
            ValueError: There is no such interpolation in as many dimensions, ``size`` has others, or ``scale`` is not
                over 0.
        """
        sides = len(self.size)
        asked = self.size if size is None else size
        if not isinstance(asked, Sequence) or len(asked) != sides or not all(side > 0 for side in asked):
            raise ValueError(f"Expected `size` of {sides} positive numbers, as {self.size}, but got {size!r}.")
        if isinstance(scale, (int, float)) and not scale > 0:  # of a tensor, to know would be to wait for the device
            raise ValueError(f"Expected `scale` to be None or a number over 0, but got {scale!r}.")
        return {
            key: to_heatmaps(evidence, self.map_status[key], asked, scale, interpolation)
            for key, evidence in self.evidence.items()
        }
