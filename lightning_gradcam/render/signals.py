"""Signals as lines, on the color of their evidence and over its curve, aligned in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.render.arrangement import FONT_SIZE, SEAM
from lightning_gradcam.render.colors import (
    BAR_GRAY,
    FAINT,
    INK,
    PAPER,
    ColorTable,
    blend_heatmaps,
    make_color,
    to_bytes,
    to_gray,
)
from lightning_gradcam.render.font import paint
from lightning_gradcam.render.tiles import FixedView, TileStyle, fit_tiles
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation

MAX_LINES = 4
"""Signals with at most this many channels are drawn as lines below one another, others as rows of shades."""

_THICKNESS = 1.3  # of a line, in pixels


@dataclass(frozen=True)
class Signals(FixedView):
    """Canvas of signals, see `Canvas`; time runs to the right.

    Args:
        image_tiles: ``(N, 3, h, w)`` uint8, the signals alone.
        gray: ``(N, 1, h, w)`` the same in gray in [0, 1], under the evidence.
        color_table: Colors of evidence.
    """

    image_tiles: Tensor
    gray: Tensor
    color_table: ColorTable
    noun: ClassVar[str] = "signal"
    footnote: ClassVar[str] = " · color and curve: evidence along the signal"

    @staticmethod
    def measure_view(signals: Tensor) -> tuple[int, int, int]:
        """Return a suitable height and width for signals ``(N, C, L)`` and 1: each is shown once."""
        return 48 + 16 * min(signals.shape[1], MAX_LINES), 192, 1

    @staticmethod
    def from_images(signals: Tensor, style: TileStyle) -> Signals:
        """Draw signals ``(N, C, L)`` in [0, 1]."""
        size = (style.size[0], max(style.size[1], style.width))  # time can be stretched at will
        if signals.shape[1] <= MAX_LINES:
            tiles = paint(draw_lines(signals, size), INK, PAPER)
            # The gray of the scale bar, so that evidence has the colors of the bar, and black lines.
            gray = (tiles[:, :1].float() - INK[0]) / (PAPER[0] - INK[0])
            return Signals(tiles, gray * BAR_GRAY, style.color_table)
        shades = fit_tiles(signals[:, None], size).expand(-1, 3, -1, -1)
        return Signals(to_bytes(shades * 255), to_gray(shades), style.color_table)

    @property
    def message_row(self) -> int:
        """The middle of the curve, which a degenerate map leaves empty."""
        return self.image_tiles.shape[-2] + SEAM + _compute_curve_height(self.image_tiles.shape[-2]) // 2

    def draw_overlays(
        self,
        evidence: Tensor,
        map_status: Tensor,
        scale: Tensor | None,
        interpolation: Interpolation = "bilinear",
        centers: CellCenters | None = None,
    ) -> Tensor:
        """Draw the signals on the color of their evidence and its curve below, ``(N, 3, h + ..., w)`` uint8."""
        height, width = self.image_tiles.shape[-2:]
        heat = to_heatmaps(evidence, map_status, (width,), scale, interpolation, centers)
        tiles = blend_heatmaps(self.gray, heat[:, None].expand(-1, height, -1), self.color_table)
        return torch.cat([F.pad(tiles, (0, 0, 0, SEAM), value=PAPER[0]), self._draw_curve(heat)], dim=2)

    def _draw_curve(self, heat: Tensor) -> Tensor:
        """Draw the area under the evidence ``(N, w)`` in its color, over a line at zero."""
        height = _compute_curve_height(self.image_tiles.shape[-2])
        rows_below = torch.arange(height - 2, -1, -1, device=heat.device)[:, None]
        coverage = (heat[:, None] * (height - 1) - rows_below).clamp(0, 1)[:, None]
        colors = blend_heatmaps(torch.full_like(heat, BAR_GRAY)[:, None, None], heat[:, None], self.color_table)
        area = to_bytes(PAPER[0] + (colors - float(PAPER[0])) * coverage)
        line = make_color(FAINT, area.device).to(area.dtype)[:, None, None]
        return torch.cat([area, line.expand(len(heat), -1, 1, heat.shape[1])], dim=2)


def restore_signals(signals: Tensor) -> tuple[Tensor, str]:
    """Scale signals ``(N, C, L)`` to [0, 1], each channel by its lowest and highest value in all signals.

    Returns:
        The scaled signals and a description of the conversion.

    >>> restore_signals(torch.tensor([[[-1.0, 1.0], [2.0, 2.0]]]))[0]
    tensor([[[0.0000, 1.0000],
             [0.5000, 0.5000]]])
    """
    signals = signals.detach().float().nan_to_num(0, 0, 0)
    low, high = signals.amin((0, 2), keepdim=True), signals.amax((0, 2), keepdim=True)
    scaled = torch.where(high > low, (signals - low) / torch.where(high > low, high - low, 1), 0.5)
    style = "lines" if signals.shape[1] <= MAX_LINES else "rows of shades, the first channel on top"
    return scaled, f"signals as {style}; each channel from its lowest to its highest value in all of them"


def draw_lines(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw the lines through values ``(N, C, L)`` in [0, 1], one channel below another: coverage ``(N, h, w)``."""
    height, width = size
    channels, length = values.shape[1:]
    # An odd factor keeps every value among the finer ones, so that a spike of one value keeps its height.
    upsampling = 1 if length >= 4 * width else 2 * (2 * width // length) + 3
    points = F.interpolate(values, size=upsampling * length, mode="linear", align_corners=False)
    lane = height // channels
    points = (1 - points) * (lane - 2 * _THICKNESS - 2) + _THICKNESS + 1
    # Within a column of pixels the line covers everything between its lowest and its highest point.
    top = -F.adaptive_max_pool1d(-torch.minimum(points[..., 1:], points[..., :-1]), width)[:, :, None]
    bottom = F.adaptive_max_pool1d(torch.maximum(points[..., 1:], points[..., :-1]), width)[:, :, None]
    row = torch.arange(lane, device=values.device)[:, None]
    coverage = torch.minimum(bottom + _THICKNESS / 2, row + 1) - torch.maximum(top - _THICKNESS / 2, row)
    return F.pad(coverage.clamp(0, 1).flatten(1, 2), (0, 0, 0, height - lane * channels))


def _compute_curve_height(height: int) -> int:
    return max(FONT_SIZE + 8, height // 3)  # room for the status of a degenerate map
