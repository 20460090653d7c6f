"""Arrangement of the images of a figure: columns, tile sizes and gaps."""

from __future__ import annotations

import math
from typing import NamedTuple

WIDTH = 564
"""Width of a figure in pixels.

TensorBoard shows images 350 pixels wide. Capital letters, 0.73 times `FONT_SIZE`, are 9 pixels high then.
"""

FONT_SIZE = 20
"""Height of the letters of figures in pixels, with room for accents and descenders."""

GAP = 4
"""Pixels between the parts of a figure."""

SEAM = 2
"""Pixels between views of the same image."""

_COLUMNS = 4  # captions of eleven characters
_MAX_TILE_SIDE = 272


class Arrangement(NamedTuple):
    """Columns of images, height and width of one view, number of views of each image, and width of a column."""

    columns: int
    size: tuple[int, int]
    views: int = 1
    width: int = 0

    @property
    def cell_width(self) -> int:
        """The width of an image with its caption, at least as wide as its views."""
        return max(self.width, self.views * (self.size[1] + SEAM) - SEAM)


def arrange(count: int, size: tuple[int, int], views: int = 1) -> Arrangement:
    """Arrange images on a figure.

    Args:
        count: Number of images.
        size: Height and width of one view.
        views: Number of views of each image, next to each other.

    >>> arrange(16, (28, 28))
    Arrangement(columns=4, size=(112, 112), views=1, width=136)
    """
    aspect = max(views * size[1] / size[0], 1)
    columns = max(1, min(count, round(_COLUMNS / math.sqrt(aspect))))
    columns = math.ceil(count / math.ceil(count / columns))  # fill all lines evenly where possible
    width = min((WIDTH - GAP) // columns - GAP, round(_MAX_TILE_SIDE * aspect))
    return Arrangement(columns, scale_tile(size, (width + SEAM) // views - SEAM), views, width)


def scale_tile(size: tuple[int, int], width: int) -> tuple[int, int]:
    """Scale ``size`` to a tile at most ``width`` wide, and not much higher than others, keeping its aspect ratio.

    Small images are enlarged by a whole factor, so that their pixels stay square.
    """
    width = max(1, min(width, round(_MAX_TILE_SIDE * size[1] / size[0])))
    if size[1] * 2 <= width:
        factor = width // size[1]
        return size[0] * factor, size[1] * factor
    return max(1, round(size[0] * width / size[1])), width
