"""Scores of dense outputs, one per class and pixel: what a segmentation model says of a class, over its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets import TARGETS, ClassScore, class_target, freeze_classes, target_name

Where: TypeAlias = Literal["auto", "predicted", "label"]


def find_pixel_scores(output: Any, sides: int) -> Tensor | None:
    """The scores ``(n, K, *s)`` of K classes at each pixel in what a model returned; None where there are none.

    A tensor with as many spatial dimensions, 2 or 3, as the images have ``sides``; or the first such one in a tuple or
    list, in an object's ``.logits``, or in a mapping's ``"out"`` or ``"logits"``: under another name, maps may as well
    be features. One score per pixel is that of a binary mask: it becomes two, whose softmax is its sigmoid.

    >>> find_pixel_scores({"aux": torch.zeros(1), "out": torch.ones(1, 1, 2, 2)}, 2).shape
    torch.Size([1, 2, 2, 2])
    """
    if isinstance(output, Tensor):
        if not output.is_floating_point() or output.ndim != sides + 2 or sides < 2:
            return None  # of signals, (n, K, L) may as well be tokens
        return output if output.shape[1] > 1 else torch.cat([-output / 2, output / 2], dim=1)
    if isinstance(output, Mapping):
        items = [output[k] for k in ("out", "logits") if k in output]
    elif hasattr(output, "logits"):
        items = [output.logits]
    else:
        items = list(output) if isinstance(output, (tuple, list)) else []
    return next((found for item in items if (found := find_pixel_scores(item, sides)) is not None), None)


def pixel_scores(output: Any, sides: int) -> Tensor:
    """As `find_pixel_scores`, but a `NotExplainableError` where there are none."""
    scores = find_pixel_scores(output, sides)
    if scores is None:
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        raise NotExplainableError(
            "Expected scores of shape (N, classes, *spatial) in the model's output, one for each class and pixel, but "
            f"got a {type(output).__name__}{shape}. Pass `forward=`, a callable of (model, probe) that returns them."
        )
    return scores


@dataclass(frozen=True)
class SegmentationScore:
    """The scores of one class per image, summed over its pixels, as Seg-Grad-CAM does (2002.11434).

    Args:
        of: ``"predicted"`` is the class that is predicted for the most pixels besides the background, ``"label"`` the
            same of the label's mask ``(N, *spatial)``, or the label where labels are ``(N,)``; or a class for all
            images, or a `ClassScore`, which has one for each. Where there is nothing but the background, that is it.
        where: Which pixels: those where the class is ``"predicted"``, or those of the ``"label"``'s mask. ``"auto"`` is
            the mask for ``of="label"`` where there are masks, and else what is predicted. An image without such a
            pixel has the score 0, and its map says "no gradient".
        background: The class that ``"predicted"`` and ``"label"`` pass over; None where there is none. (Cityscapes has
            none; its class 0 is the road.)

    Example:
        >>> scores = torch.tensor([[[[9.0, 9, 9, 9]], [[1.0, 8, 1, 1]], [[1.0, 1, 10, 11]]]])  # 3 classes, 1x4 pixels
        >>> probe = Probe(torch.rand(1, 3, 1, 4))
        >>> SegmentationScore()(scores, probe), SegmentationScore(1)(scores, probe)
        (tensor([21.]), tensor([0.]))
    """

    of: Literal["predicted", "label"] | int | ClassScore = "predicted"
    where: Where = "auto"
    background: int | None = 0

    def __post_init__(self) -> None:
        if self.where not in ("auto", "predicted", "label"):
            raise ValueError(f"Expected `where` to be 'auto', 'predicted' or 'label', but got {self.where!r}.")
        if isinstance(self.of, str):
            object.__setattr__(self, "of", _named(self.of))
        elif not isinstance(self.of, ClassScore):
            object.__setattr__(self, "of", class_target(self.of))

    @property
    def name(self) -> str:
        """How pictures call it: of the "label", say."""
        return target_name(self._score)

    @property
    def _score(self) -> ClassScore:
        assert isinstance(self.of, ClassScore)
        return self.of

    def chosen(self, output: Any, probe: Probe) -> Tensor:
        """What is explained, as `ClassScore` has it; classes ``(n,)`` mostly."""
        return self._chosen(pixel_scores(output, len(probe.size)).detach(), probe)

    def region(self, output: Any, probe: Probe) -> Tensor:
        """The pixels that count, ``(n, *s)`` bool, on the output's grid."""
        scores = pixel_scores(output, len(probe.size)).detach()
        return self._region(scores, probe, self._chosen(scores, probe))

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """The scores, ``(n,)``."""
        scores = pixel_scores(output, len(probe.size))
        chosen = self._chosen(scores.detach(), probe)
        region = self._region(scores.detach(), probe, chosen)
        if chosen.dtype == torch.bool:
            of_pixels = scores.amax(1)  # where one of them is predicted, it has the largest score
        else:
            of_pixels = _of_class(scores, chosen if chosen.ndim == 1 else chosen[:, 0])
            of_pixels = of_pixels - _of_class(scores, chosen[:, 1]) if chosen.ndim > 1 else of_pixels
        return torch.where(region, of_pixels, torch.zeros_like(of_pixels)).flatten(1).sum(1)

    def check(self, count: int, probe: Probe) -> None:
        """Raise a ValueError where a class is none of the output's; masks may hold numbers that mean "ignore".

        (Waits for the device.)

        Args:
            count: How many classes the output tells apart.
            probe: All images.
        """
        if not self._of_masks(probe):
            self._score.check(probe.images.new_zeros(len(probe), count), probe)

    def freeze(self, output: Any, probe: Probe) -> SegmentationScore:
        """The classes that are chosen now, for these rows for good."""
        return self.freeze_to(self.chosen(output, probe))

    def freeze_to(self, chosen: Tensor) -> SegmentationScore:
        """The same with what was `chosen` for N images."""
        where: Where = "label" if self.where == "auto" and self._score is TARGETS["label"] else self.where
        return replace(self, of=freeze_classes(chosen), where=where)

    def select_rows(self, rows: slice | Sequence[int]) -> SegmentationScore:
        """The same for some rows of the probe."""
        return replace(self, of=self._score.select_rows(rows))

    def _of_masks(self, probe: Probe) -> bool:
        return self._score is TARGETS["label"] and probe.has_masks

    def _chosen(self, scores: Tensor, probe: Probe) -> Tensor:
        masks = probe.labels if self._of_masks(probe) else scores.argmax(1)
        assert masks is not None
        # How many pixels have which class; the background counts as less than one.
        areas = torch.stack([(masks == k).flatten(1).sum(1) for k in range(scores.shape[1])], dim=1).float()
        if self.background is not None:
            areas[:, self.background] = areas[:, self.background].clamp_max(0.5)
        return areas.argmax(1) if self._of_masks(probe) else self._score.choose(areas, probe).clone()

    def _region(self, scores: Tensor, probe: Probe, chosen: Tensor) -> Tensor:
        of_label = self.where == "label" or (self.where == "auto" and self._score is TARGETS["label"])
        masks = scores.argmax(1)
        if of_label and probe.has_masks:
            assert probe.labels is not None
            size = tuple(scores.shape[2:])
            masks = F.interpolate(probe.labels[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
        if chosen.dtype == torch.bool:
            return chosen.gather(1, scores.argmax(1).flatten(1)).reshape(masks.shape)
        classes = chosen if chosen.ndim == 1 else chosen[:, 0]
        return masks == classes.reshape(-1, *[1] * (masks.ndim - 1))


def _of_class(scores: Tensor, classes: Tensor) -> Tensor:
    """Of ``(n, K, *s)`` those of one class per image, ``(n, *s)``."""
    size = scores.shape[2:]
    at = classes.clamp_min(0).reshape(-1, 1, *[1] * len(size)).expand(-1, 1, *size)
    return scores.gather(1, at)[:, 0]


def _named(name: str) -> ClassScore:
    score = TARGETS.resolve(name)
    if not isinstance(score, ClassScore):
        raise ValueError(f"Expected `of` to be 'predicted', 'label', a class or a ClassScore, but got {name!r}.")
    return score
