"""Display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.utils.interpolation import Interpolation

Scale: TypeAlias = Literal["image", "shared"] | float


@dataclass(frozen=True)
class DisplayConfig:
    """How looks are shown.

    Args:
        pixels: The normalisation of the images.
        names: What the classes are called; their numbers where None.
        colormap: A matplotlib colormap.
        scale: ``"image"``: every map from its minimum to its maximum. ``"shared"``: all from 0 to the largest evidence
            of any look so far. A number: all from 0 to that.
        film: How many looks the picture of the run shows; 0 for none.
        interpolation: How maps are enlarged, see `Explanation.heatmaps`.
    """

    pixels: Normalization | None = None
    names: Sequence[str] | None = None
    colormap: str = "inferno"
    scale: Scale = "image"
    film: int = 8
    interpolation: Interpolation = "bilinear"

    def check(self, classes: int | None, channels: int) -> None:
        """Raise a ValueError where names or normalisation do not fit a model with ``classes`` and its images."""
        if self.names is not None and classes and len(self.names) < classes:
            raise ValueError(f"Expected {classes} class names, one per class of the model, but got {len(self.names)}.")
        if self.pixels is not None and len(self.pixels.mean) not in (1, channels):
            raise ValueError(
                f"Expected a mean and std in `pixels` for each of {channels} channels, or one for all, but got "
                f"{len(self.pixels.mean)}."
            )
