"""Maps as fine as their images, such as saliency: they are drawn by other means than the coarse maps of layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PEAK_FRACTION = 0.01
"""The fraction of pixels that share the last color, as in the figures of Smilkov et al. 2017, arXiv:1706.03825."""

PEAK_DESCRIPTION = "the strongest 1% of its pixels"
"""The meaning of the last color in the footer of such a figure."""


def to_drawable(
    evidence: Tensor, image_size: tuple[int, ...], tile_size: tuple[int, int], per_image_scale: bool
) -> Tensor:
    """Convert evidence ``(N, *s)`` to the maps that are drawn: coarse maps are returned unchanged.

    A map as fine as its image loses its negative values. If the tile is smaller than the map, neighboring pixels are
    averaged. With a scale per image, values above the strongest hundredth are clipped, so that a few peaks do not leave
    all other pixels dark.

    Args:
        evidence: Signed.
        image_size: Spatial dimensions of the images.
        tile_size: Height and width of a drawn image.
        per_image_scale: Whether each map is scaled separately.

    >>> to_drawable(torch.arange(200.0).reshape(1, 10, 20), (10, 20), (10, 20), per_image_scale=True).max()
    tensor(198.)
    """
    if tuple(evidence.shape[1:]) != image_size:
        return evidence
    maps = evidence.relu()
    if len(image_size) == 2 and (tile_size[0] < image_size[0] or tile_size[1] < image_size[1]):
        maps = F.interpolate(maps[:, None], size=tile_size, mode="bilinear", antialias=True)[:, 0]
    if not per_image_scale:
        return maps
    flat = maps.flatten(1)
    limit = flat.topk(math.ceil(PEAK_FRACTION * flat.shape[1])).values[:, -1:]
    return torch.where(limit > 0, flat.minimum(limit), flat).reshape(maps.shape)
