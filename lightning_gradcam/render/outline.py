"""The border of a region on a picture, which stays visible on any colour."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def outlined(tiles: Tensor, region: Tensor) -> Tensor:
    """Pictures ``(N, 3, h, w)`` uint8 with a line around a region ``(N, H, W)`` bool: white inside of it, black beside.

    >>> region = torch.zeros(1, 5, 5, dtype=torch.bool)
    >>> region[0, 1:4, 1:4] = True
    >>> outlined(torch.full((1, 3, 5, 5), 7, dtype=torch.uint8), region)[0, 0, 2]
    tensor([  0, 255,   7, 255,   0], dtype=torch.uint8)
    """
    size = (tiles.shape[-2], tiles.shape[-1])
    inside = F.interpolate(region[:, None].float(), size=size, mode="nearest-exact")
    grown, shrunk = F.max_pool2d(inside, 3, 1, 1), 1 - F.max_pool2d(1 - inside, 3, 1, 1)
    white, black = (inside > shrunk).expand_as(tiles), (grown > inside).expand_as(tiles)
    return torch.where(white, 255, torch.where(black, 0, tiles)).to(torch.uint8)
