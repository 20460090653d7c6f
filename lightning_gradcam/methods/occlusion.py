"""What a score loses where a window of the image is hidden; without a gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.methods.base import METHODS
from lightning_gradcam.methods.captum_adapter import AT_ONCE, adapt_for_captum, describe_method
from lightning_gradcam.methods.segments import Fill, check_fill, make_fill


@dataclass(frozen=True)
class Occlusion:
    """How much the score falls where a window of the image is hidden; the mean over the windows that cover a pixel.

    Zeiler and Fergus 2013, arXiv:1311.2901, section 4.2.

    Args:
        window: Its sides in pixels; None is a fifth of each of the image's.
        stride: From one window to the next; None is half a window.
        fill: What is seen in its place.

    Raises:
        ValueError: A number is not over 0, or ``fill`` is of no known kind.
    """

    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    fill: Fill = "mean"
    extra: ClassVar[str] = "captum"
    place: ClassVar[str] = PIXELS

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            value = getattr(self, name)
            sides = tuple(value) if isinstance(value, (list, tuple)) else (1 if value is None else value,)
            if not sides or any(not isinstance(side, int) or side < 1 for side in sides):
                raise ValueError(f"Expected `{name}` to be None, or one or more pixels, but got {value!r}.")
            object.__setattr__(self, name, sides if isinstance(value, (list, tuple)) else value)
        check_fill(self.fill)

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return describe_method("occlusion", self)

    def _sides(self, size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        window = _along(self.window or tuple(max(1, side // 5) for side in size), size, "window")
        window = tuple(min(pair) for pair in zip(window, size, strict=True))
        stride = _along(self.stride or tuple(max(1, side // 2) for side in window), size, "stride")
        return window, tuple(min(pair) for pair in zip(stride, window, strict=True))  # no place is left out

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Signed evidence ``(n, *spatial)`` at the pixels."""
        from captum import attr

        count, channels, *size = passes.probe.images.shape
        window, stride = self._sides(tuple(size))
        windows = math.prod(
            1 + math.ceil((side - wide) / step) for side, wide, step in zip(size, window, stride, strict=True)
        )
        with adapt_for_captum(passes, self.name, count * (1 + windows)) as score:
            found = [
                attr.Occlusion(score).attribute(
                    images,
                    (channels, *window),
                    (channels, *stride),
                    make_fill(images, self.fill),
                    additional_forward_args=(rows,),
                    perturbations_per_eval=max(1, AT_ONCE // len(images)),
                )
                for images, rows in score.portions()
            ]
        return {PIXELS: torch.cat(found)[:, 0]}  # the same in all channels


def _along(value: int | tuple[int, ...], size: tuple[int, ...], name: str) -> tuple[int, ...]:
    sides = (value,) * len(size) if isinstance(value, int) else value
    if len(sides) != len(size):
        raise ValueError(f"Expected `{name}` of one or {len(size)} numbers for images of {size}, but got {value!r}.")
    return sides


METHODS.register("occlusion")(Occlusion())
