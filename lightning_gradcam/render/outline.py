"""Outlines of explained regions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_outline(tiles: Tensor, region: Tensor) -> Tensor:
    """Draw a line around a region: white on its inner side, black on its outer side.

    Args:
        tiles: ``(N, 3, h, w)`` uint8.
        region: ``(N, H, W)`` bool.

    Returns:
        New tiles ``(N, 3, h, w)`` uint8.

    >>> region = torch.zeros(1, 5, 5, dtype=torch.bool)
    >>> region[0, 1:4, 1:4] = True
    >>> draw_outline(torch.full((1, 3, 5, 5), 7, dtype=torch.uint8), region)[0, 0, 2]
    tensor([  0, 255,   7, 255,   0], dtype=torch.uint8)
    """
    size = (tiles.shape[-2], tiles.shape[-1])
    inside = F.interpolate(region[:, None].float(), size=size, mode="nearest-exact")
    dilated, eroded = F.max_pool2d(inside, 3, 1, 1), 1 - F.max_pool2d(1 - inside, 3, 1, 1)
    is_white, is_black = (inside > eroded).expand_as(tiles), (dilated > inside).expand_as(tiles)
    return torch.where(is_white, 255, torch.where(is_black, 0, tiles)).to(torch.uint8)
