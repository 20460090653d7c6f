"""What an explanation is: signed evidence, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.trace import Layer

FLAWS: tuple[str | None, ...] = (None, "not finite", "no gradient", "all zero", "constant")
"""Why a map cannot be read. The first that applies is reported; None says that nothing is wrong."""

CONSTANT = 1e-3
"""A map whose range is under this part of its maximum is constant: stretching it would show rounding errors."""

Interpolation: TypeAlias = Literal["bilinear", "nearest", "bicubic"]

_MODES = {
    "bilinear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "nearest": dict.fromkeys((1, 2, 3), "nearest-exact"),
    "bicubic": {2: "bicubic"},
}


class NotExplainableError(RuntimeError):
    """The model turned out to have nothing that can be explained this way; the message says why and what to do."""


class ForwardError(NotExplainableError):
    """The model's own forward pass raised; the error it raised is the cause."""


def flaws(evidence: Tensor, gradients: Tensor | None = None) -> Tensor:
    """Find the maps that cannot be read.

    Args:
        evidence: ``(N, *s)`` signed evidence.
        gradients: ``(N, ...)`` the gradients it was made from, where it was.

    Returns:
        ``(N,)`` uint8 indices into `FLAWS`, on the evidence's device.

    >>> [FLAWS[i] for i in flaws(torch.tensor([[1.0, 0.0], [-1.0, -2.0], [2.0, 2.0], [torch.nan, 0.0]]))]
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


def probabilities(logits: Tensor) -> Tensor:
    """Softmax ``(N, K)``; rows that already are probabilities stay as they are.

    >>> probabilities(torch.tensor([[0.25, 0.75], [0.0, 0.0]]))
    tensor([[0.2500, 0.7500], [0.5000, 0.5000]])
    """
    given = ((logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-3))[:, None]
    return torch.where(given, logits, logits.softmax(1))


def predictions(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probability ``(N,)`` and class ``(N,)`` of the best class; NaN and -1 where logits are not finite.

    >>> predictions(torch.tensor([[0.0, 0.0, 9.0], [torch.nan, 0.0, 0.0]]))[1]
    tensor([ 2, -1])
    """
    sure, predicted = probabilities(logits).max(1)
    finite = logits.isfinite().all(1)
    return sure.masked_fill(~finite, torch.nan), predicted.masked_fill(~finite, -1)


@dataclass(frozen=True)
class Explanation:
    """Where the evidence for a score lies, for each image of a probe.

    Mappings have one key per layer, or ``"layer/method"`` where several methods were asked for. Tensors lie on the
    images' device.

    Args:
        evidence: ``(N, *s)`` float32, signed, before the final ReLU, on the layer's own grid.
        logits: What the model put out for the images, ``(N, K)`` float32.
        classes: ``(N,)`` the classes explained; None where the target was not a class.
        size: The images' spatial dimensions.
        layers: Where the evidence was read.
        flaws: ``(N,)`` uint8 per key, indices into `FLAWS`.
    """

    evidence: Mapping[str, Tensor]
    logits: Tensor
    classes: Tensor | None
    size: tuple[int, ...]
    layers: Mapping[str, Layer] = field(default_factory=dict)
    flaws: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def degenerate(self) -> Mapping[str, tuple[str | None, ...]]:
        """Per image None, or why its map cannot be read. (Reading this waits for the device.)"""
        return {key: tuple(FLAWS[code] for code in codes.tolist()) for key, codes in self.flaws.items()}

    @property
    def maps(self) -> Mapping[str, Tensor]:
        """``(N, *s)`` float32 class activation maps: ``relu(evidence)``, at their own magnitude."""
        return {key: evidence.relu() for key, evidence in self.evidence.items()}

    def map(self, change: Callable[[Tensor], Tensor]) -> Explanation:
        """The same with each of its tensors, all ``(N, ...)``, changed."""
        return replace(
            self,
            evidence={key: change(tensor) for key, tensor in self.evidence.items()},
            logits=change(self.logits),
            classes=None if self.classes is None else change(self.classes),
            flaws={key: change(codes) for key, codes in self.flaws.items()},
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
            evidence={key: torch.cat([part.evidence[key] for part in parts]) for key in first.evidence},
            logits=torch.cat([part.logits for part in parts]),
            classes=None if first.classes is None else torch.cat([p.classes for p in parts if p.classes is not None]),
            flaws={key: torch.cat([part.flaws[key] for part in parts]) for key in first.flaws},
        )

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
            key: to_heatmaps(evidence, self.flaws[key], asked, scale, interpolation)
            for key, evidence in self.evidence.items()
        }


@torch.no_grad()
def to_heatmaps(
    evidence: Tensor,
    flaws: Tensor,
    size: tuple[int, ...],
    scale: float | Tensor | None = None,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """`Explanation.heatmaps` for the evidence ``(N, *s)`` of one layer."""
    usable = (flaws == 0).reshape(-1, *[1] * (evidence.ndim - 1))
    maps = torch.where(usable, evidence.relu(), 0)
    if scale is None:
        maps = _stretch(maps)
    else:
        # Constant maps have a magnitude, so on a common scale they can be shown.
        shown = ((flaws == 0) | (flaws == 4)).reshape(usable.shape)
        unit = torch.as_tensor(scale, device=maps.device).clamp_min(1e-38)
        maps = (torch.where(shown, evidence.relu(), 0) / unit).clamp_max(1e6)  # finite, also where the scale is tiny
    maps = resize(maps, size, interpolation)
    # Interpolation can cut the peak, so pytorch-grad-cam stretches once more.
    return _stretch(maps) if scale is None else maps.clamp(0, 1)


def check_interpolation(interpolation: str, dimensions: int = 2) -> None:
    """Raise a ValueError where there is no such interpolation in as many dimensions."""
    choices = [name for name, modes in _MODES.items() if dimensions in modes]
    if interpolation not in choices:
        raise ValueError(
            f"Expected `interpolation` of {dimensions}-dimensional maps to be {', '.join(map(repr, choices))}, but got "
            f"{interpolation!r}."
        )


def resize(maps: Tensor, size: tuple[int, ...], interpolation: Interpolation = "bilinear") -> Tensor:
    """Maps ``(N, *s)``, none below zero, at another size; errors as of `check_interpolation`."""
    check_interpolation(interpolation, len(size))
    mode = _MODES[interpolation][len(size)]
    if mode == "nearest-exact":
        return F.interpolate(maps[:, None], size=size, mode=mode)[:, 0]
    enlarged = F.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    return enlarged.clamp_min(0) if mode == "bicubic" else enlarged  # which swings below zero beside a peak


def _stretch(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    extent = high - low
    # No epsilon: a map whose maximum is 1e-9 is a map. Where there is no extent, there is nothing to divide.
    return ((flat - low) / torch.where(extent > 0, extent, 1)).reshape(maps.shape)
