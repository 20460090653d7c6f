"""Receptive field arithmetic: where the cells of a tensor lie in the image, one axis of the tensor at a time.

The formulas are those of Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill,
except for the phase of strides. A convolution with kernel 3, stride 2 and padding 1 reads around inputs 0, 2, ... of an
even number, so that the grid hangs over by half a step at the start, 15.5 pixels after the five strides of a ResNet. No
position that a stride could start from is special, and training moves what cells respond to back towards an even cover
of the image: see ``docs/layers.md``. A grid of strided windows is therefore centered on its input, unless it is off by
more than half a stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TypeAlias

from lightning_gradcam.utils.cell_centers import CellCenters


@dataclass(frozen=True)
class AxisCenters:
    """Centers of the receptive fields along one axis of a tensor: index i lies at ``offset + step * i``.

    Args:
        image_axis: The spatial axis of the image that the tensor's axis follows.
        offset: Center at index 0, where the image extends from 0 to 1.
        step: Distance between neighbors.
    """

    image_axis: int
    offset: float
    step: float

    def at(self, start: float, stride: float) -> AxisCenters:
        """Return the centers of another axis, whose index i reads this one at ``start + stride * i``."""
        return replace(self, offset=self.offset + self.step * start, step=self.step * stride)


TensorCenters: TypeAlias = tuple[AxisCenters | None, ...]
"""Centers along each axis of a tensor; None for an axis that does not follow one of the image."""


@dataclass(frozen=True)
class Window:
    """The window of a convolution or pooling along one axis.

    Args:
        kernel: Number of inputs.
        stride: Distance between windows.
        padding: Number of inputs added before the first.
        dilation: Distance between the inputs of a window.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def slide(self, centers: AxisCenters, length: int, count: int) -> AxisCenters:
        """Return the centers of the windows.

        Args:
            centers: Those of the inputs.
            length: Number of inputs.
            count: Number of windows.

        >>> Window(kernel=5).slide(AxisCenters(0, 0, 1), 8, 4)
        AxisCenters(image_axis=0, offset=2.0, step=1)
        >>> Window(kernel=3, stride=2, padding=1).slide(AxisCenters(0, 0, 1), 8, 4)
        AxisCenters(image_axis=0, offset=0.5, step=2)
        """
        start = self.dilation * (self.kernel - 1) / 2 - self.padding
        overhang = start + self.stride * (count - 1) / 2 - (length - 1) / 2
        if self.stride > 1 and abs(overhang) <= self.stride / 2:
            start -= overhang
        return centers.at(start, self.stride)

    def transpose(self, centers: AxisCenters, length: int, count: int) -> AxisCenters:
        """Return the centers of a transposed convolution with this window; for the arguments, see `slide`."""
        mirrored = self.slide(AxisCenters(centers.image_axis, 0, 1), count, length)
        return centers.at(-mirrored.offset / self.stride, 1 / self.stride)


def spread_axis(image_axis: int, length: int) -> AxisCenters:
    """Return the centers of an axis whose indices cover the image evenly."""
    return AxisCenters(image_axis, 0.5 / length, 1 / length)


def spread_image(shape: Sequence[int], dimensions: int, spatial: int) -> TensorCenters:
    """Return the centers of a tensor whose last ``spatial`` axes cover the last ones of an image evenly.

    Args:
        shape: Shape of the tensor.
        dimensions: Number of spatial axes of the image.
        spatial: Number of spatial axes of the tensor.
    """
    first = len(shape) - spatial
    axes = [axis - len(shape) + dimensions for axis in range(len(shape))]
    return tuple(
        spread_axis(image_axis, length) if axis >= first and image_axis >= 0 else None
        for axis, (image_axis, length) in enumerate(zip(axes, shape, strict=True))
    )


def rescale(centers: AxisCenters, length: int, new_length: int) -> AxisCenters:
    """Return the centers of an axis of another length that covers the same extent evenly."""
    return centers.at(0.5 * length / new_length - 0.5, length / new_length)


def fit(centers: AxisCenters, length: int, new_length: int) -> AxisCenters:
    """Return the centers after an unknown operation: one that pads or crops both ends, or changes the resolution."""
    is_resized = max(length, new_length) % min(length, new_length) == 0 or not 0.5 < new_length / length < 2
    return rescale(centers, length, new_length) if is_resized else centers.at((length - new_length) / 2, 1)


def average(centers: Sequence[AxisCenters | None]) -> AxisCenters | None:
    """Return the mean of the centers of tensors that are added or concatenated, as far as these follow the image."""
    followed = [c for c in centers if c is not None]
    if not followed or len({c.image_axis for c in followed}) > 1:
        return None
    return AxisCenters(followed[0].image_axis, fmean(c.offset for c in followed), fmean(c.step for c in followed))


def to_cell_centers(axes: Sequence[AxisCenters | None]) -> CellCenters | None:
    """Return the centers of a grid with these axes; None unless they are those of an image, in order."""
    followed = [axis for axis in axes if axis is not None]
    if [axis.image_axis for axis in followed] != list(range(len(axes))):
        return None
    return CellCenters(tuple(axis.offset for axis in followed), tuple(axis.step for axis in followed))
