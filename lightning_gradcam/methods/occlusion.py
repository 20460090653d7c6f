"""Occlusion sensitivity: how much the score drops while a window of the image is hidden."""

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
from lightning_gradcam.methods.captum_adapter import BATCH_SIZE, adapt_for_captum
from lightning_gradcam.methods.pixel_method import PixelMethod
from lightning_gradcam.methods.segments import Fill, check_fill, make_fill


@dataclass(frozen=True)
class Occlusion(PixelMethod):
    """Occlusion: the drop of the score when a window is hidden, averaged over the windows that cover a pixel.

    Zeiler and Fergus 2013, arXiv:1311.2901, section 4.2. Needs forward passes only.

    Args:
        window: The window's sides in pixels; by default a fifth of each side of the image.
        stride: The step from one window to the next, in pixels; by default half a window.
        fill: The value that replaces hidden pixels.

    Raises:
        ValueError: A number is not positive, or ``fill`` is neither a number nor ``"mean"``.
    """

    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    fill: Fill = "mean"
    base_name: ClassVar[str] = "occlusion"

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            value = getattr(self, name)
            sides = tuple(value) if isinstance(value, (list, tuple)) else (1 if value is None else value,)
            if not sides or any(not isinstance(side, int) or side < 1 for side in sides):
                raise ValueError(f"Expected `{name}` to be None, or one or more pixels, but got {value!r}.")
            object.__setattr__(self, name, sides if isinstance(value, (list, tuple)) else value)
        check_fill(self.fill)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return signed evidence ``(n, *spatial)`` at the pixels."""
        from captum import attr

        count, channels, *size = passes.probe.images.shape
        window, stride = self._resolve_sides(tuple(size))
        windows = math.prod(
            1 + math.ceil((side - extent) / step) for side, extent, step in zip(size, window, stride, strict=True)
        )
        with adapt_for_captum(passes, self.name, count * (1 + windows)) as score:
            batches = [
                attr.Occlusion(score).attribute(
                    images,
                    (channels, *window),
                    (channels, *stride),
                    make_fill(images, self.fill),
                    additional_forward_args=(indices,),
                    perturbations_per_eval=max(1, BATCH_SIZE // len(images)),
                )
                for images, indices in score.iterate_batches()
            ]
        return {PIXELS: torch.cat(batches)[:, 0]}  # all channels are hidden together and have the same value

    def _resolve_sides(self, size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return window and stride for images of a size; a stride never exceeds the window, so no pixel is skipped."""
        window = _expand_sides(self.window or tuple(max(1, side // 5) for side in size), size, "window")
        window = tuple(min(pair) for pair in zip(window, size, strict=True))
        stride = _expand_sides(self.stride or tuple(max(1, side // 2) for side in window), size, "stride")
        return window, tuple(min(pair) for pair in zip(stride, window, strict=True))


def _expand_sides(value: int | tuple[int, ...], size: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Return one number per spatial dimension.

    Raises:
        ValueError: The count of numbers is neither one nor the number of dimensions.
    """
    sides = (value,) * len(size) if isinstance(value, int) else value
    if len(sides) != len(size):
        raise ValueError(f"Expected `{name}` of one or {len(size)} numbers for images of {size}, but got {value!r}.")
    return sides


METHODS.register("occlusion")(Occlusion())
