"""Trace of receptive field centers through the graph that autograd recorded, which holds functions as well as modules.

The nodes of this graph know the strides, paddings and dilations of their operations. No further pass is needed, and
neither sparse activations nor operations that mix all positions, such as squeeze-and-excitation, disturb the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_gradcam.capture.layouts import Frames, Grid, ToGrid, Turned, channels_first, channels_last
from lightning_gradcam.layers.autograd_edges import Edge, get_edge, get_shape
from lightning_gradcam.layers.center_rules import CENTER_RULES, Operand, Shape, combine, convolve, pool, slide_windows
from lightning_gradcam.layers.module_windows import list_windows
from lightning_gradcam.layers.receptive_field import TensorCenters, spread_axis, spread_image, to_cell_centers
from lightning_gradcam.layers.spatial_grid import GridReading
from lightning_gradcam.layers.tensor_history import TensorOrigin
from lightning_gradcam.utils.cell_centers import CellCenters


class CenterTracer:
    """Traces the centers of the cells of one output after another, in order of execution.

    Args:
        images: The images as the model received them.
        image_size: Their spatial dimensions.
        leaves: Per id of a tensor, the origin of an output that has no graph, such as that of a frozen first layer.
    """

    def __init__(self, images: Tensor, image_size: Grid, leaves: Mapping[int, TensorOrigin]) -> None:
        self.image_size, self._leaves = image_size, leaves
        self._operands: dict[Edge, Operand] = {}
        self._axes_by_grid: dict[Grid, TensorCenters] = {}
        edge = get_edge(images)
        if edge is not None and tuple(images.shape[2:]) == image_size:
            self._operands[edge] = self._spread(tuple(images.shape), len(image_size))

    def trace(self, tensor: Tensor) -> Operand:
        """Trace the centers of an output along all of its axes; its graph must not have been freed."""
        operand = self._trace(tensor)
        dimensions = len(self.image_size)
        for first in (2, 1):  # channels first or last
            axes = operand.centers[first : first + dimensions]
            if len(operand.shape) == dimensions + 2 and to_cell_centers(axes) is not None:
                self._axes_by_grid[operand.shape[first : first + dimensions]] = axes
        return operand

    def read(self, tensor: Tensor, reading: GridReading) -> CellCenters | None:
        """Read the centers of an output's cells; those of tokens are those of the latest map on the same grid.

        Args:
            tensor: The output, which was traced.
            reading: Its grid and layout.

        Returns:
            The centers; None if the trace lost them.
        """
        grid = reading.grid
        if grid is None or len(grid) != len(self.image_size):
            return None
        axes = _select_axes(self._trace(tensor).centers, reading.to_grid)
        if len(axes) != len(grid) or to_cell_centers(axes) is None:
            axes = self._axes_by_grid.get(grid, ())
        return to_cell_centers(axes) if axes else None

    def turn(self, tensor: Tensor, reading: GridReading) -> GridReading:
        """Return a reading with the axes in the images' order, if the trace shows that the model has exchanged them."""
        axes = _select_axes(self._trace(tensor).centers, reading.to_grid)
        order = [axis.image_axis for axis in axes if axis is not None]
        if reading.grid is None or order == sorted(order) or sorted(order) != list(range(len(self.image_size))):
            return reading
        dimensions = tuple(map(order.index, range(len(order))))
        grid = tuple(reading.grid[dimension] for dimension in dimensions)
        return GridReading(grid, Turned(reading.to_grid, dimensions))

    def _trace(self, tensor: Tensor) -> Operand:
        """Return a tensor's shape and centers, from those of all that it was computed from."""
        edge = get_edge(tensor)
        if edge is None:
            return self._spread(tuple(tensor.shape), len(self.image_size))
        pending = [edge]
        while pending:
            missing = [operand for operand in self._list_inputs(*pending[-1]) if operand not in self._operands]
            if pending[-1] in self._operands or not missing:
                last = pending.pop()
                if last not in self._operands:
                    self._operands[last] = self._compute(*last)
            else:
                pending.extend(missing)
        return self._operands[edge]

    def _list_inputs(self, node: Any, _index: int) -> Iterator[Edge]:
        """Yield the edges that a node's output was computed from."""
        origin = self._find_origin(node)
        if origin is None:
            yield from (edge for edge in node.next_functions if edge[0] is not None)
        else:
            yield from filter(None, map(get_edge, origin.inputs[:1]))

    def _find_origin(self, node: Any) -> TensorOrigin | None:
        """Return the origin of a module's output that begins a graph."""
        return self._leaves.get(id(node.variable)) if hasattr(node, "variable") else None

    def _compute(self, node: Any, index: int) -> Operand:
        """Return the shape and centers of one node's output, whose inputs are known."""
        origin = self._find_origin(node)
        if origin is not None:
            return self._compute_leaf(origin)
        shape = get_shape(node, index)
        inputs = [self._operands.get(edge, _UNKNOWN) for edge in node.next_functions]
        rule = CENTER_RULES.find(type(node).__name__)
        if rule is None:
            return Operand(shape, combine(shape, inputs))
        if rule in (convolve, pool):
            inputs = self._complete(node, inputs)
        return Operand(shape, rule(node, shape, inputs))

    def _complete(self, node: Any, inputs: Sequence[Operand]) -> list[Operand]:
        """Add what the graph lacks to the inputs of a convolution or pooling: of the images and of frozen weights."""
        data, *weights = inputs
        if data is _UNKNOWN:
            data = self._spread(tuple(node._saved_input.shape), len(node._saved_stride))
        if not any(data.centers):
            data = self._spread(data.shape, len(node._saved_padding))
        if weights and weights[0] is _UNKNOWN:
            weights[0] = Operand(tuple(node._saved_weight.shape), ())
        return [data, *weights]

    def _spread(self, shape: Shape, spatial: int) -> Operand:
        """Return a tensor whose last axes are those of the latest map on the same grid, or cover the image evenly."""
        axes = self._axes_by_grid.get(shape[len(shape) - spatial :])
        if axes is not None:
            return Operand(shape, (*[None] * (len(shape) - spatial), *axes))
        return Operand(shape, spread_image(shape, len(self.image_size), spatial))

    def _compute_leaf(self, origin: TensorOrigin) -> Operand:
        """Return the centers of an output that begins a graph, from the attributes of its module."""
        shape = tuple(origin.returned.shape)
        if not origin.inputs:
            return Operand(shape, (None,) * len(shape))
        source = self._trace(origin.inputs[0])
        windows = list_windows(origin.maker, source.shape[2:], shape[2:])
        if windows is None:
            return Operand(shape, combine(shape, [source]))
        return Operand(shape, slide_windows(windows, source, shape))


_UNKNOWN = Operand((), ())
"""An input without a graph."""


def _select_axes(centers: TensorCenters, layout: ToGrid) -> TensorCenters:
    """Return the centers along the spatial axes of an output; none for tokens and layouts of the user."""
    match layout:
        case Frames(count, of_frame):
            return spread_axis(0, count), *_select_axes(centers, of_frame)
        case Turned(of_output, axes):
            selected = _select_axes(centers, of_output)
            return tuple(selected[axis] for axis in axes) if len(selected) == len(axes) else ()
    if layout is channels_first:
        return centers[2:]
    return centers[1:-1] if layout is channels_last else ()
