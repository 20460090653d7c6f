"""Signals as lines, with the evidence behind and below them, aligned in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.render.colors import BAR, FAINT, INK, PAPER, ColorTable, lay_over, make_color, to_bytes, to_gray
from lightning_gradcam.render.font import Font, paint
from lightning_gradcam.render.photos import SEAM, fit_tiles
from lightning_gradcam.utils.interpolation import Interpolation

LINES = 4
"""Signals of up to so many channels are lines below one another; of more, rows of shades."""

_THICK = 1.3  # pixels of a line


@dataclass(frozen=True)
class Signals:
    """Signals at the size of their tiles; time runs to the right.

    Args:
        photos: ``(N, 3, h, w)`` uint8, the signals alone.
        under: ``(N, 1, h, w)`` the same in grey in [0, 1].
        ramp: Colours of evidence.
    """

    photos: Tensor
    under: Tensor
    ramp: ColorTable
    noun: ClassVar[str] = "signal"
    legend: ClassVar[str] = "   colour and curve: evidence along the signal"

    @staticmethod
    def extent(photos: Tensor) -> tuple[int, int, int]:
        """Height and width that serve signals ``(N, C, L)``, each shown once."""
        return 48 + 16 * min(photos.shape[1], LINES), 192, 1

    @staticmethod
    def of(photos: Tensor, size: tuple[int, int], _views: int, ramp: ColorTable, _font: Font, /) -> Signals:
        """Draw signals ``(N, C, L)`` in [0, 1]."""
        if photos.shape[1] <= LINES:
            drawn = paint(draw_lines(photos, size), INK, PAPER)
            # The grey of the scale bar, so that evidence has the bar's colours.
            return Signals(drawn, drawn[:, :1] / PAPER[0] * BAR, ramp)
        shown = fit_tiles(photos[:, None], size).expand(-1, 3, -1, -1)
        return Signals(to_bytes(shown * 255), to_gray(shown), ramp)

    @property
    def words(self) -> int:
        """The row of a tile that says why a map is degenerate: beside the curve."""
        return self.photos.shape[-2] + SEAM + _curve_height(self.photos.shape[-2]) // 2

    def freeze_view(self, _: Tensor, /) -> Signals:
        """The same whatever the evidence."""
        return self

    def overlays(
        self, evidence: Tensor, map_status: Tensor, scale: Tensor | None, interpolation: Interpolation = "bilinear"
    ) -> Tensor:
        """Signals on the colour of their evidence, and its curve below, ``(N, 3, h + ..., w)`` uint8."""
        height, width = self.photos.shape[-2:]
        heat = to_heatmaps(evidence, map_status, (width,), scale, interpolation)
        tiles = lay_over(self.under, heat[:, None].expand(-1, height, -1), self.ramp)
        return torch.cat([F.pad(tiles, (0, 0, 0, SEAM), value=PAPER[0]), self._curve(heat)], dim=2)

    def _curve(self, heat: Tensor) -> Tensor:
        """The area under the evidence ``(N, w)``, in its colour, over a line that is no evidence."""
        height = _curve_height(self.photos.shape[-2])
        below = torch.arange(height - 2, -1, -1, device=heat.device)[:, None]
        covered = (heat[:, None] * (height - 1) - below).clamp(0, 1)[:, None]
        colors = lay_over(torch.full_like(heat, BAR)[:, None, None], heat[:, None], self.ramp)
        area = to_bytes(PAPER[0] + (colors - float(PAPER[0])) * covered)
        line = make_color(FAINT, area.device).to(area.dtype)[:, None, None]
        return torch.cat([area, line.expand(len(heat), -1, 1, heat.shape[1])], dim=2)


def restore_signals(signals: Tensor) -> tuple[Tensor, str]:
    """Signals ``(N, C, L)`` to [0, 1], each channel from its lowest to its highest value in all of them, and how.

    >>> restore_signals(torch.tensor([[[-1.0, 1.0], [2.0, 2.0]]]))[0]
    tensor([[[0.0000, 1.0000],
             [0.5000, 0.5000]]])
    """
    signals = signals.detach().float().nan_to_num(0, 0, 0)
    low, high = signals.amin((0, 2), keepdim=True), signals.amax((0, 2), keepdim=True)
    shown = torch.where(high > low, (signals - low) / torch.where(high > low, high - low, 1), 0.5)
    way = "lines" if signals.shape[1] <= LINES else "rows of shades, the first channel on top"
    return shown, f"signals as {way}; each channel from its lowest to its highest value in all of them"


def draw_lines(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Coverage ``(N, h, w)`` of the lines through values ``(N, C, L)`` in [0, 1], one channel below another."""
    height, width = size
    channels, length = values.shape[1:]
    # An odd factor keeps every value among the finer ones, so that a spike of one value keeps its height.
    finer = 1 if length >= 4 * width else 2 * (2 * width // length) + 3
    points = F.interpolate(values, size=finer * length, mode="linear", align_corners=False)
    lane = height // channels
    points = (1 - points) * (lane - 2 * _THICK - 2) + _THICK + 1
    # In a column the line covers all that lies between its lowest and its highest point there.
    top = -F.adaptive_max_pool1d(-torch.minimum(points[..., 1:], points[..., :-1]), width)[:, :, None]
    bottom = F.adaptive_max_pool1d(torch.maximum(points[..., 1:], points[..., :-1]), width)[:, :, None]
    row = torch.arange(lane, device=values.device)[:, None]
    covered = torch.minimum(bottom + _THICK / 2, row + 1) - torch.maximum(top - _THICK / 2, row)
    return F.pad(covered.clamp(0, 1).flatten(1, 2), (0, 0, 0, height - lane * channels))


def _curve_height(height: int) -> int:
    return max(18, height // 3)
