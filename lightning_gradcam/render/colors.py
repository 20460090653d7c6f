"""Colors of figures: evidence is colored, photos are gray, so that color means evidence and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeAlias

import matplotlib
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.utils.registry import unknown_name_error

Color: TypeAlias = tuple[float, float, float]

INK, PAPER, FAINT = (33, 33, 38), (250, 250, 250), (115, 115, 122)
"""Colors of text, of the background and of less important text: red, green and blue from 0 to 255."""

BAR_GRAY = 0.6
"""The gray under the scale bar, from 0 to 1."""

MAX_OPACITY = 0.8
"""The opacity of the strongest evidence."""

MORE, LESS = (1.0, 0.2, 0.25), (0.2, 0.45, 1.0)
"""Colors of evidence that was gained and of evidence that was lost: red, green and blue from 0 to 1."""

_LUMA_WEIGHTS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ColorTable:
    """Lookup table of the colors of evidence over gray.

    Args:
        table: ``(256 * 256,)`` int32, the red, green, blue and one unused byte of each color: for 256 levels of
            evidence, from none to the most, 256 levels of gray each, from black to white.
    """

    table: Tensor

    @staticmethod
    def from_colormap(
        colormap: str, device: torch.device | str = "cpu", max_opacity: float = MAX_OPACITY
    ) -> ColorTable:
        """Build the table of a matplotlib colormap.

        The more evidence, the more opaque its color, from 0 to ``max_opacity``; without evidence the photo is
        unchanged. The color takes its shade from the photo, so that the object stays visible where the evidence is
        strongest.

        Raises:
            ValueError: matplotlib does not have this colormap.
        """
        check_colormap(colormap)
        levels = np.linspace(0, 1, 256)
        colors = torch.tensor(matplotlib.colormaps[colormap](levels)[:, :3], dtype=torch.float32)
        return ColorTable._from_colors(colors, device, max_opacity)

    @staticmethod
    @lru_cache(maxsize=8)
    def from_color(color: Color, device: torch.device | str = "cpu") -> ColorTable:
        """Build the table of one RGB color in [0, 1], which becomes more opaque with more evidence."""
        return ColorTable._from_colors(torch.tensor(color).expand(256, 3), device)

    @staticmethod
    def _from_colors(colors: Tensor, device: torch.device | str, max_opacity: float = MAX_OPACITY) -> ColorTable:
        """Build the table of 256 colors ``(256, 3)`` in [0, 1], one per level of evidence."""
        opacity, gray = max_opacity * torch.linspace(0, 1, 256)[:, None, None], torch.linspace(0, 1, 256)[:, None]
        shaded = colors[:, None] * (0.65 + 0.5 * gray)
        mixed = to_bytes(255 * torch.lerp(gray, shaded, opacity))
        return ColorTable(F.pad(mixed, (0, 1)).view(torch.int32).flatten().to(device))


def check_colormap(name: str) -> None:
    """Raise a ValueError if matplotlib does not have this colormap."""
    if name not in matplotlib.colormaps:
        raise unknown_name_error("matplotlib colormap", name, [n for n in matplotlib.colormaps if not n.endswith("_r")])


@cache
def make_color(color: Color, device: torch.device) -> Tensor:
    """Return a color as a ``(3,)`` float32 tensor on the device. Do not modify it in place: it is cached.

    Copying the color again for each figure would wait for the device.
    """
    with torch.inference_mode(False):  # the cached tensor outlives the snapshot
        return torch.tensor(color, dtype=torch.float32).to(device)


def to_gray(photos: Tensor) -> Tensor:
    """Convert RGB photos ``(N, 3, h, w)`` in [0, 1] to the gray ``(N, 1, h, w)`` under the evidence."""
    return 0.1 + 0.75 * (photos * make_color(_LUMA_WEIGHTS, photos.device)[:, None, None]).sum(1, keepdim=True)


def blend_heatmaps(gray: Tensor, heatmaps: Tensor, color_table: ColorTable) -> Tensor:
    """Color gray photos ``(N, 1, h, w)`` by heatmaps ``(N, h, w)``, both in [0, 1]: ``(N, 3, h, w)`` uint8."""
    indices = (heatmaps * 255 + 0.5).int() * 256 + (gray[:, 0] * 255 + 0.5).int()
    colors = color_table.table.index_select(0, indices.flatten())  # one lookup for all three channels
    return colors.view(torch.uint8).reshape(*indices.shape, 4)[..., :3].permute(0, 3, 1, 2)


def blend_changes(gray: Tensor, changes: Tensor) -> Tensor:
    """Color gray photos ``(N, 1, h, w)`` by changes ``(N, h, w)`` in [-1, 1]: ``(N, 3, h, w)`` uint8.

    Positive changes have the color `MORE`, negative ones the color `LESS`.
    """
    increase, decrease = (
        blend_heatmaps(gray, magnitude, ColorTable.from_color(color, changes.device))
        for magnitude, color in ((changes.relu(), MORE), ((-changes).relu(), LESS))
    )
    return torch.where((changes > 0)[:, None], increase, decrease)


def to_bytes(values: Tensor) -> Tensor:
    """Round values from 0 to 255 to uint8, modifying ``values`` in place."""
    return values.add_(0.5).clamp_(0, 255).to(torch.uint8)
