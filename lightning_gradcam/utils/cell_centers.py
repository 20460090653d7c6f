"""Centers of a map's cells in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

Placement: TypeAlias = Literal["receptive_field", "stretch"]
"""Where the cells of a map lie in the image: at the centers of their receptive fields, or spread evenly."""


@dataclass(frozen=True)
class CellCenters:
    """Centers of a grid's cells, an affine function of their index along each axis: ``offset + step * index``.

    The image extends from 0 to 1 along each axis, so that the centers hold at any size in which it is shown. Pixel j of
    m has its center at ``(j + 0.5) / m``.

    Args:
        offset: Center of the first cell along each axis. It lies outside of the image if padding moves it there.
        step: Distance between neighboring cells along each axis.
    """

    offset: tuple[float, ...]
    step: tuple[float, ...]

    @staticmethod
    def spread(grid: Sequence[int]) -> CellCenters:
        """Return the centers of cells that cover the image evenly.

        >>> CellCenters.spread((2, 4))
        CellCenters(offset=(0.25, 0.125), step=(0.5, 0.25))
        """
        return CellCenters(tuple(0.5 / cells for cells in grid), tuple(1 / cells for cells in grid))

    def locate(self, points: CellCenters, counts: Sequence[int], device: torch.device) -> list[Tensor]:
        """Locate points, such as the centers of pixels, on this grid.

        Args:
            points: The points.
            counts: Number of points along each axis.
            device: The device of the result.

        Returns:
            Per axis, ``(t,)`` float32 fractional indices; those beyond the outermost centers are negative or more than
            the number of cells - 1.

        >>> pixels = CellCenters.spread((4,))
        >>> CellCenters.spread((2,)).locate(pixels, (4,), torch.device("cpu"))
        [tensor([-0.2500,  0.2500,  0.7500,  1.2500])]
        """
        positions = []
        for axis, count in enumerate(counts):
            first = (points.offset[axis] - self.offset[axis]) / self.step[axis]
            distance = points.step[axis] / self.step[axis]
            positions.append(first + distance * torch.arange(count, device=device))
        return positions

    def average_with_mirrored(self, axis: int, cells: int) -> CellCenters:
        """Return the mean of the centers and of those in the mirror image, whose cells are in reverse order."""
        axis %= len(self.offset)
        middle = (1 - self.step[axis] * (cells - 1)) / 2
        return CellCenters((*self.offset[:axis], middle, *self.offset[axis + 1 :]), self.step)

    def measure_shift(self, grid: Sequence[int], size: Sequence[int]) -> float:
        """Return the largest distance along an axis, in pixels, to the centers of cells that cover the image evenly.

        Args:
            grid: Number of cells along each axis.
            size: Number of pixels of the image along each axis.

        >>> CellCenters(offset=(0.5 / 256,), step=(32 / 256,)).measure_shift((8,), (256,))
        15.5
        """
        spread = CellCenters.spread(grid)
        return max(
            abs(self.offset[axis] - spread.offset[axis] + (self.step[axis] - spread.step[axis]) * index) * size[axis]
            for axis, cells in enumerate(grid)
            for index in (0, cells - 1)
        )


def check_placement(placement: object) -> None:
    """Raise a ValueError unless it is a `Placement`."""
    if placement not in get_args(Placement):
        choices = " or ".join(map(repr, get_args(Placement)))
        raise ValueError(f"Expected `placement` to be {choices}, but got {placement!r}.")
