"""Evidence as colour over a grey photo: in the overlay, colour means evidence and nothing else."""

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

BAR = 0.6
"""The grey under the scale bar."""

OPAQUE = 0.8
"""How far the most evidence covers the photo below it."""

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ColorTable:
    """The colours of evidence over grey, as a table.

    Args:
        table: ``(256 * 256,)`` int32, the red, green and blue byte (and one of no use) of each colour: for evidence
            from none to most, 256 greys each, from black to white.
    """

    table: Tensor

    @staticmethod
    def named(colormap: str, device: torch.device | str = "cpu", opaque: float = OPAQUE) -> ColorTable:
        """The ramp of a matplotlib colormap, with the most evidence as ``opaque`` as that, from 0 to 1.

        The more evidence, the more opaque its colour; no evidence leaves the photo alone. The colour takes its shade
        from the photo, so that the object stays visible where the evidence is strongest.

        Raises:
            ValueError: matplotlib knows no such colormap.
        """
        check_colormap(colormap)
        steps = np.linspace(0, 1, 256)
        shades = torch.tensor(matplotlib.colormaps[colormap](steps)[:, :3], dtype=torch.float32)
        return ColorTable._over_grey(shades, device, opaque)

    @staticmethod
    @lru_cache(maxsize=8)
    def toward(color: tuple[float, float, float], device: torch.device | str = "cpu") -> ColorTable:
        """The ramp of one RGB colour, the more evidence the more opaque."""
        return ColorTable._over_grey(torch.tensor(color).expand(256, 3), device)

    @staticmethod
    def _over_grey(colors: Tensor, device: torch.device | str, opaque: float = OPAQUE) -> ColorTable:
        opacity, grey = opaque * torch.linspace(0, 1, 256)[:, None, None], torch.linspace(0, 1, 256)[:, None]
        shaded = colors[:, None] * (0.65 + 0.5 * grey)
        mixed = to_bytes(255 * torch.lerp(grey, shaded, opacity))
        return ColorTable(F.pad(mixed, (0, 1)).view(torch.int32).flatten().to(device))


def check_colormap(name: str) -> None:
    """Raise a ValueError where matplotlib knows no such colormap."""
    if name not in matplotlib.colormaps:
        raise unknown_name_error("matplotlib colormap", name, [n for n in matplotlib.colormaps if not n.endswith("_r")])


@cache
def make_color(color: Color, device: torch.device) -> Tensor:
    """One number for each of red, green and blue, ``(3,)`` float32: put on the device once, and not to be written to.

    To put it there again would wait for the device.
    """
    with torch.inference_mode(False):  # it outlives the look
        return torch.tensor(color, dtype=torch.float32).to(device)


def to_gray(photos: Tensor) -> Tensor:
    """RGB ``(N, 3, h, w)`` in [0, 1] to the grey ``(N, 1, h, w)`` that evidence is laid over."""
    return 0.1 + 0.75 * (photos * make_color(_LUMA, photos.device)[:, None, None]).sum(1, keepdim=True)


def lay_over(under: Tensor, heatmaps: Tensor, ramp: ColorTable) -> Tensor:
    """Lay heatmaps ``(N, h, w)`` in [0, 1] over grey photos ``(N, 1, h, w)``: ``(N, 3, h, w)`` uint8."""
    places = (heatmaps * 255 + 0.5).int() * 256 + (under[:, 0] * 255 + 0.5).int()
    colors = ramp.table.index_select(0, places.flatten())  # one step for all three channels
    return colors.view(torch.uint8).reshape(*places.shape, 4)[..., :3].permute(0, 3, 1, 2)


MORE, LESS = (1.0, 0.2, 0.25), (0.2, 0.45, 1.0)
"""The colours of evidence that is added and of evidence that is taken away."""


def lay_over_signed(under: Tensor, change: Tensor) -> Tensor:
    """Lay changes ``(N, h, w)`` in [-1, 1] over grey photos: `MORE` where evidence is added, `LESS` where it goes."""
    parts = zip((change.relu(), (-change).relu()), (MORE, LESS), strict=True)
    more, less = (lay_over(under, part, ColorTable.toward(color, change.device)) for part, color in parts)
    return torch.where((change > 0)[:, None], more, less)


def to_bytes(values: Tensor) -> Tensor:
    """0 to 255, rounded, as uint8. (Changes ``values``.)"""
    return values.add_(0.5).clamp_(0, 255).to(torch.uint8)
