"""Places of cells, followed through the graph that autograd recorded: a proof of a layout without a further pass."""

from __future__ import annotations

from torch import Tensor

from lightning_gradcam.capture.layouts import Grid, ToGrid, Tokens, channels_first, channels_last
from lightning_gradcam.layers.autograd_edges import Edge, get_edge, get_shape
from lightning_gradcam.layers.place_rules import PLACE_RULES, Axis, Factor, Places, lose, merge_parts
from lightning_gradcam.layers.spatial_grid import GridReading


class PlaceTracer:
    """Follows the cells of the images through the operations that keep them in their places.

    Args:
        images: The images ``(n, C, *s)`` as the model received them.
        image_size: Their spatial dimensions.
    """

    def __init__(self, images: Tensor, image_size: Grid) -> None:
        self._batch: Axis = (Factor(len(images), is_batch=True),) if len(images) > 1 else ()
        self._places: dict[Edge, Places] = {}
        edge = get_edge(images)
        if edge is not None and tuple(images.shape[2:]) == image_size:
            axes = [(Factor(size, ((axis, size),)),) if size > 1 else () for axis, size in enumerate(image_size)]
            self._places[edge] = (self._batch, *lose(images.shape[1:2]), *axes)

    def proves(self, tensor: Tensor, reading: GridReading) -> bool:
        """Return whether the graph shows that a tensor has its cells where a reading has them; before it is freed."""
        layout, grid = reading.to_grid, reading.grid
        edge = get_edge(tensor)
        if grid is None or edge is None or not self._places:
            return False
        places = self._trace(edge)
        if isinstance(layout, Tokens):
            cells = merge_parts(places[1 - layout.rows])
            steps = layout.order or tuple(range(len(grid)))
            parts = tuple((dimension, grid[dimension]) for dimension in steps if grid[dimension] > 1)
            expected = Factor(tensor.shape[1 - layout.rows], parts, layout.prefix, layout.suffix)
            return cells == expected and places[layout.rows] == self._batch
        axes = _select_axes(places, layout)
        alike = [
            axis == ((Factor(side, ((d, side),)),) if side > 1 else ())
            for d, (axis, side) in enumerate(zip(axes, grid, strict=False))
        ]
        return len(axes) == len(grid) and all(alike) and places[0] == self._batch

    def _trace(self, edge: Edge) -> Places:
        """Return the places of a node's output, from those of all that it was computed from."""
        pending = [edge]
        while pending:
            node, index = pending[-1]
            if (node, index) in self._places:
                pending.pop()
                continue
            rule = PLACE_RULES.find(type(node).__name__)
            sources = [source for source in node.next_functions if source[0] is not None] if rule else []
            missing = [source for source in sources if source not in self._places]
            if missing:
                pending.extend(missing)
                continue
            shape = get_shape(node, index)
            inputs = [self._places.get(source) for source in node.next_functions]
            self._places[node, index] = rule(node, shape, inputs) if rule and inputs else lose(shape)
            pending.pop()
        return self._places[edge]


def _select_axes(places: Places, layout: ToGrid) -> Places:
    """Return the spatial axes of an output; none of a layout whose axes are exchanged, or of the user."""
    if layout is channels_first:
        return places[2:]
    return places[1:-1] if layout is channels_last else ()
