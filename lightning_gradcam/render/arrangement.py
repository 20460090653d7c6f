"""Arrangement of the images of a figure: columns, tile sizes and gaps."""

from __future__ import annotations

import math
from typing import NamedTuple

WIDTH = 1024
"""Maximum width of a figure in pixels: a browser would scale down wider ones."""

GAP = 4
"""Pixels between the parts of a figure."""

SEAM = 2
"""Pixels between views of the same image."""

_MAX_TILE_WIDTH = 200
_MIN_TILE_WIDTH = 84  # a caption of twelve characters


class Arrangement(NamedTuple):
    """Columns of images, height and width of one view, and the number of views of each image."""

    columns: int
    size: tuple[int, int]
    views: int = 1


def arrange(count: int, size: tuple[int, int], views: int = 1, width: int = WIDTH) -> Arrangement:
    """Arrange images on a figure.

    Args:
        count: Number of images.
        size: Height and width of one view.
        views: Number of views of each image, next to each other.
        width: Width of the figure in pixels.

    >>> arrange(16, (28, 28)), arrange(12, (224, 224))
    (Arrangement(columns=8, size=(112, 112), views=1), Arrangement(columns=6, size=(166, 166), views=1))
    """
    aspect = views * size[1] / size[0]
    columns = max(1, min(count, round(8 / math.sqrt(aspect)), width // (_MIN_TILE_WIDTH + GAP)))
    columns = math.ceil(count / math.ceil(count / columns))  # fill all lines evenly where possible
    tile_width = min((width - GAP) // columns - GAP, round(_MAX_TILE_WIDTH * max(aspect, 1)))
    return Arrangement(columns, scale_tile(size, (tile_width + SEAM) // views - SEAM), views)


def scale_tile(size: tuple[int, int], width: int) -> tuple[int, int]:
    """Scale ``size`` to a tile at most ``width`` wide, keeping its aspect ratio.

    Small images are enlarged by a whole factor, so that their pixels stay square.
    """
    if size[1] * 2 <= width:
        factor = width // size[1]
        return size[0] * factor, size[1] * factor
    return max(1, round(size[0] * width / size[1])), width
