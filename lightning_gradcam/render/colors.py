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

from lightning_gradcam.render.oklab import from_oklab, to_oklab
from lightning_gradcam.utils.registry import unknown_name_error

Color: TypeAlias = tuple[float, float, float]

INK, PAPER, FAINT = (33, 33, 38), (250, 250, 250), (115, 115, 122)
"""Colors of text, of the background and of less important text: red, green and blue from 0 to 255."""

BAR_GRAY = 0.6
"""The gray under the scale bar, from 0 to 1."""

STRENGTH = 0.8
"""The default strength of the color of the most evidence, from 0 (invisible) to 1."""

BLACK, WHITE = 0.37, 0.59
"""OKLab lightness of black and of white photos under the evidence.

At every lightness in between, a screen can show all hues, and there is room above for evidence that is lighter.
"""

_LIGHTER, _DARKER = 0.5, 0.25  # the lightness that a colormap from black to white, or back, adds at strength 1
_CHROMA = 1.2  # the part of a colormap's chroma that is added at strength 1

MORE, LESS = (1.0, 0.2, 0.25), (0.2, 0.45, 1.0)
"""Colors of evidence that was gained and of evidence that was lost: red, green and blue from 0 to 1."""

_LUMA_WEIGHTS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ColorTable:
    """Lookup table of the colors of evidence over gray.

    Evidence adds the same OKLab vector to every gray: it changes a dark pixel as visibly as a bright one, and all
    differences of lightness within the photo remain.

    Args:
        table: ``(256 * 256,)`` int32, the red, green, blue and one unused byte of each color: for 256 levels of
            evidence, from none to the most, 256 levels of gray each, from black to white.
    """

    table: Tensor

    @staticmethod
    @lru_cache(maxsize=8)
    def from_colormap(colormap: str, device: torch.device | str = "cpu", strength: float = STRENGTH) -> ColorTable:
        """Build the table of a matplotlib colormap.

        Evidence has the hue of the colormap, and becomes lighter where the colormap does, or darker. The more evidence,
        the more of both is added, from nothing to ``strength``; without evidence the photo is gray.

        Raises:
            ValueError: matplotlib does not have this colormap.
        """
        check_colormap(colormap)
        levels = np.linspace(0, 1, 256)
        colors = torch.tensor(matplotlib.colormaps[colormap](levels)[:, :3])
        return ColorTable._from_colors(colors, device, strength)

    @staticmethod
    @lru_cache(maxsize=8)
    def from_color(color: Color, device: torch.device | str = "cpu") -> ColorTable:
        """Build the table of one RGB color in [0, 1], of which more evidence adds more."""
        return ColorTable._from_colors(torch.tensor(color).expand(256, 3), device)

    @staticmethod
    def _from_colors(colors: Tensor, device: torch.device | str, strength: float = STRENGTH) -> ColorTable:
        """Build the table of 256 colors ``(256, 3)`` in [0, 1], one per level of evidence."""
        lightness = BLACK + (WHITE - BLACK) * to_oklab(torch.linspace(0, 1, 256)[:, None].expand(-1, 3))[:, 0]
        ground = F.pad(lightness[:, None], (0, 2))
        colors = from_oklab(ground + _compute_offsets(to_oklab(colors), strength)[:, None])
        return ColorTable(F.pad(to_bytes(255 * colors), (0, 1)).view(torch.int32).flatten().to(device))


def _compute_offsets(lab: Tensor, strength: float) -> Tensor:
    """Return what evidence of each level adds to gray, in OKLab.

    Args:
        lab: ``(levels, 3)`` the colors of a colormap in OKLab, from no evidence to the most.
        strength: From 0 to 1.
    """
    evidence = torch.linspace(0, 1, len(lab), dtype=lab.dtype)[:, None]
    rise = strength * (lab[:, :1] - lab[:1, :1])
    lightness = torch.where(rise > 0, _LIGHTER * rise, _DARKER * rise).clamp(0.1 - BLACK, 0.98 - WHITE)
    chroma = strength * _CHROMA * evidence * lab[:, 1:]
    # A screen can show less chroma the darker or the lighter a color is: take what all grays have in common.
    grounds = torch.linspace(BLACK, WHITE, 5, dtype=lab.dtype)[:, None]
    low, high = torch.zeros_like(evidence), torch.ones_like(evidence)
    for _ in range(12):
        factor = (low + high) / 2
        pixels = from_oklab(torch.cat([lightness, factor * chroma], 1)[:, None] + F.pad(grounds, (0, 2)))
        fits = ((pixels > -0.003) & (pixels < 1.003)).flatten(1).all(1, keepdim=True)
        low, high = torch.where(fits, factor, low), torch.where(fits, high, factor)
    return torch.cat([lightness, low * chroma], 1)


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
    """Convert RGB photos ``(N, 3, h, w)`` in [0, 1] to gray ``(N, 1, h, w)`` in [0, 1]."""
    return (photos * make_color(_LUMA_WEIGHTS, photos.device)[:, None, None]).sum(1, keepdim=True)


def blend_heatmaps(gray: Tensor, heatmaps: Tensor, color_table: ColorTable) -> Tensor:
    """Add the colors of heatmaps ``(N, h, w)`` to gray photos ``(N, 1, h, w)``, both in [0, 1].

    Returns:
        ``(N, 3, h, w)`` uint8. Black and white become grays, which leave room for the colors of evidence.
    """
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
