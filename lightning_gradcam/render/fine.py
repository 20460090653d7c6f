"""Maps as fine as their images, where a few single pixels would leave all others dark."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PEAKS = 0.01
"""The share of pixels that have the last colour together, as Smilkov et al. 2017, arXiv:1706.03825, draw theirs."""

SAID = "the strongest 1% of its pixels"
"""What the last colour means then."""


def drawable(evidence: Tensor, size: tuple[int, ...], tile: tuple[int, int], own: bool) -> Tensor:
    """What is drawn of evidence ``(N, *s)``: of coarse maps, all that they are.

    Where a map is as fine as its image, pixels that a smaller tile has no room for are averaged, and where it is scaled
    by itself, what exceeds its strongest hundredth is cut off.

    Args:
        evidence: Signed.
        size: The images' spatial dimensions.
        tile: Height and width of a drawn image.
        own: Whether every map is scaled by itself.

    >>> drawable(torch.arange(200.0).reshape(1, 10, 20), (10, 20), (10, 20), own=True).max()
    tensor(198.)
    """
    if tuple(evidence.shape[1:]) != size:
        return evidence
    maps = evidence.relu()
    if len(size) == 2 and (tile[0] < size[0] or tile[1] < size[1]):
        maps = F.interpolate(maps[:, None], size=tile, mode="bilinear", antialias=True)[:, 0]
    if not own:
        return maps
    flat = maps.flatten(1)
    limit = flat.topk(math.ceil(PEAKS * flat.shape[1])).values[:, -1:]
    return torch.where(limit > 0, flat.minimum(limit), flat).reshape(maps.shape)
