"""Options of the figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from lightning_gradcam.utils.interpolation import Interpolation

Scale: TypeAlias = Literal["image", "shared"] | float


@dataclass(frozen=True)
class DisplayConfig:
    """Options of the figures that a monitor draws.

    Args:
        colormap: A matplotlib colormap.
        scale: ``"image"``: every map from its minimum to its maximum. ``"shared"``: all maps from 0 to the largest
            evidence of any snapshot so far. A number: all maps from 0 to that number.
        film: The number of snapshots in the film of the run; 0 for no film.
        interpolation: How maps are enlarged, see `Explanation.heatmaps`.
        bands: The channels to show as red, green and blue, if the normalization does not say.
    """

    colormap: str = "inferno"
    scale: Scale = "image"
    film: int = 8
    interpolation: Interpolation = "bilinear"
    bands: tuple[int, ...] | None = None
