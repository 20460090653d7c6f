"""Scores of a segmentation model: of one class, summed over pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.classes import ClassScore, ClassTarget, class_target, freeze_classes
from lightning_gradcam.targets.pixel_classes import count_pixels, predict_pixels
from lightning_gradcam.targets.registry import TARGETS, target_name
from lightning_gradcam.targets.unsupported import unsupported_output

PixelSource: TypeAlias = Literal["auto", "predicted", "label"]


def find_pixel_scores(output: Any, dimensions: int) -> Tensor | None:
    """Return the scores ``(n, K, *s)`` of K classes at each pixel in a model's output; None if there are none.

    This is a tensor with as many spatial ``dimensions``, 2 or 3, as the images; or the first such tensor in a tuple or
    list, in an object's ``.logits``, or in a mapping's ``"out"`` or ``"logits"``. Maps under other names may be
    features. One score per pixel is a binary mask's: it becomes two, whose softmax is its sigmoid.

    >>> find_pixel_scores({"aux": torch.zeros(1), "out": torch.ones(1, 1, 2, 2)}, 2).shape
    torch.Size([1, 2, 2, 2])
    """
    if isinstance(output, Tensor):
        if not output.is_floating_point() or output.ndim != dimensions + 2 or dimensions < 2:
            return None  # for signals, (n, K, L) may be tokens
        return output if output.shape[1] > 1 else torch.cat([-output / 2, output / 2], dim=1)
    if isinstance(output, Mapping):
        items = [output[k] for k in ("out", "logits") if k in output]
    elif hasattr(output, "logits"):
        items = [output.logits]
    else:
        items = list(output) if isinstance(output, (tuple, list)) else []
    return next((scores for item in items if (scores := find_pixel_scores(item, dimensions)) is not None), None)


def require_pixel_scores(output: Any, dimensions: int) -> Tensor:
    """Return the scores as `find_pixel_scores` does.

    Raises:
        NotExplainableError: The output has none.
    """
    scores = find_pixel_scores(output, dimensions)
    if scores is None:
        raise unsupported_output(
            "Expected scores of shape (N, classes, *spatial) in the model's output, one per class and pixel", output
        )
    return scores


@dataclass(frozen=True)
class SegmentationScore(ClassTarget):
    """Score of one class per image, summed over its pixels, as in Seg-Grad-CAM (2002.11434).

    Args:
        of: ``"predicted"`` for the class with the most predicted pixels, without the background; ``"label"`` for the
            class with the most pixels in the label's mask ``(N, *spatial)``, or the label if labels are ``(N,)``; or a
            class for all images, or a `ClassScore` with one class per image. An image of background only is explained
            for the background.
        where: The pixels that are summed: those where the class is ``"predicted"``, or those of the ``"label"``'s mask.
            ``"auto"`` is the mask for ``of="label"`` if the probe has masks, else the predicted pixels. An image
            without such a pixel has the score 0, and its map says "no gradient".
        background: The class that ``"predicted"`` and ``"label"`` skip; None if there is no background. (Cityscapes has
            none: its class 0 is the road.)

    Example:
        >>> scores = torch.tensor([[[[9.0, 9, 9, 9]], [[1.0, 8, 1, 1]], [[1.0, 1, 10, 11]]]])  # 3 classes, 1x4 pixels
        >>> probe = Probe(torch.rand(1, 3, 1, 4))
        >>> SegmentationScore()(scores, probe), SegmentationScore(1)(scores, probe)
        (tensor([21.]), tensor([0.]))
    """

    of: Literal["predicted", "label"] | int | ClassScore = "predicted"
    where: PixelSource = "auto"
    background: int | None = 0

    def __post_init__(self) -> None:
        if self.where not in ("auto", "predicted", "label"):
            raise ValueError(f"Expected `where` to be 'auto', 'predicted' or 'label', but got {self.where!r}.")
        if isinstance(self.of, str):
            object.__setattr__(self, "of", _get_class_score(self.of))
        elif not isinstance(self.of, ClassScore):
            object.__setattr__(self, "of", class_target(self.of))

    @property
    def name(self) -> str:
        """Name in figures, for example "label"."""
        return target_name(self._score)

    @property
    def _score(self) -> ClassScore:
        assert isinstance(self.of, ClassScore)
        return self.of

    def select_classes(self, output: Any, probe: Probe) -> Tensor:
        """Select the classes as `ClassScore` does; mostly ``(n,)``."""
        return self._select_classes(require_pixel_scores(output, len(probe.size)), probe)

    def select_pixels(self, output: Any, probe: Probe) -> Tensor:
        """Select the pixels that are summed, ``(n, *s)`` bool, on the output's grid."""
        scores = require_pixel_scores(output, len(probe.size))
        return self._select_pixels(scores, probe, self._select_classes(scores, probe))

    def find_region(self, output: Any, probe: Probe) -> Tensor:
        """Return the pixels that are summed, ``(n, *spatial)`` bool, at the images' size."""
        pixels = self.select_pixels(output, probe)
        return F.interpolate(pixels[:, None].float(), size=probe.size, mode="nearest-exact")[:, 0] > 0

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``."""
        scores = require_pixel_scores(output, len(probe.size))
        classes = self._select_classes(scores, probe)
        pixels = self._select_pixels(scores, probe, classes)
        if classes.dtype == torch.bool:
            class_scores = scores.amax(1)  # at a pixel that is predicted as one of them, its score is the largest
        else:
            class_scores = _gather_class(scores, classes if classes.ndim == 1 else classes[:, 0])
            class_scores = class_scores - _gather_class(scores, classes[:, 1]) if classes.ndim > 1 else class_scores
        return torch.where(pixels, class_scores, torch.zeros_like(class_scores)).flatten(1).sum(1)

    def check(self, count: int, probe: Probe) -> None:
        """Raise a ValueError if the output does not have a selected class. (Waits for the device.)

        Masks are not checked: they may contain numbers that mean "ignore".

        Args:
            count: Number of classes in the output.
            probe: All images.
        """
        if not self._reads_masks(probe):
            self._score.check(probe.images.new_zeros(len(probe), count), probe)

    def freeze_to(self, classes: Tensor) -> SegmentationScore:
        """Return the score of ``classes``, as selected for N images, over the same pixels."""
        where: PixelSource = "label" if self.where == "auto" and self._score is TARGETS["label"] else self.where
        return replace(self, of=freeze_classes(classes), where=where)

    def select_rows(self, rows: slice | Sequence[int]) -> SegmentationScore:
        """Return the target for some images of the probe."""
        return replace(self, of=self._score.select_rows(rows))

    def _reads_masks(self, probe: Probe) -> bool:
        """Return whether the classes come from the label's masks."""
        return self._score is TARGETS["label"] and probe.has_masks

    def _select_classes(self, scores: Tensor, probe: Probe) -> Tensor:
        """Select the classes by their number of pixels."""
        if self._reads_masks(probe):
            assert probe.labels is not None
            areas = count_pixels(probe.labels, scores.shape[1])
        else:
            areas = predict_pixels(scores).areas.clone()
        if self.background is not None:  # counts as less than one pixel
            areas[:, self.background] = areas[:, self.background].clamp_max(0.5)
        return areas.argmax(1) if self._reads_masks(probe) else self._score.choose(areas, probe).clone()

    def _select_pixels(self, scores: Tensor, probe: Probe, classes: Tensor) -> Tensor:
        """Select the pixels of these classes, predicted or in the label's mask."""
        uses_label = self.where == "label" or (self.where == "auto" and self._score is TARGETS["label"])
        masks = predict_pixels(scores).masks
        if uses_label and probe.has_masks:
            assert probe.labels is not None
            size = tuple(scores.shape[2:])
            masks = F.interpolate(probe.labels[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
        if classes.dtype == torch.bool:
            return classes.gather(1, predict_pixels(scores).masks.flatten(1)).reshape(masks.shape)
        explained = classes if classes.ndim == 1 else classes[:, 0]
        return masks == explained.reshape(-1, *[1] * (masks.ndim - 1))


def _gather_class(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the scores ``(n, *s)`` of one class per image from ``(n, K, *s)``."""
    size = scores.shape[2:]
    index = classes.clamp_min(0).reshape(-1, 1, *[1] * len(size)).expand(-1, 1, *size)
    return scores.gather(1, index)[:, 0]


def _get_class_score(name: str) -> ClassScore:
    """Return the registered class score of that name."""
    score = TARGETS.resolve(name)
    if not isinstance(score, ClassScore):
        raise ValueError(f"Expected `of` to be 'predicted', 'label', a class or a ClassScore, but got {name!r}.")
    return score
