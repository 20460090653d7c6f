"""Graph of a traced pass: which earlier outputs, or the images, each output and the score were computed from."""

from __future__ import annotations

from torch.autograd.graph import Node

from lightning_gradcam.capture.layer import IMAGES


class TraceGraph:
    """Finds what tensors of a pass were computed from, by a walk through autograd's graph.

    Each node is visited once in total. What was computed without grad has no nodes; there, the walk ends.

    Args:
        images_node: The node of the images as the model receives them; None if they carry no grad.
    """

    def __init__(self, images_node: Node | None) -> None:
        # The nodes are kept alive, since a node's Python object is its identity.
        self._sources: dict[Node, frozenset[int]] = {}
        self._outputs: dict[Node, int] = {}
        self.add(images_node, IMAGES)

    def add(self, node: Node | None, index: int) -> None:
        """Add the node of the tensor with which the model continues after output ``index``."""
        if node is not None:
            self._outputs[node] = index

    def find_sources(self, node: Node | None) -> frozenset[int]:
        """Find the outputs from which a node was computed without another output in between.

        Returns:
            Their indices; `IMAGES` stands for the images.
        """
        if node is None:
            return frozenset()
        if node in self._outputs:
            return frozenset({self._outputs[node]})
        stack = [node]
        while stack:
            current = stack[-1]
            if current in self._sources:
                stack.pop()
                continue
            inputs = [fn for fn, _ in current.next_functions if fn is not None and fn not in self._outputs]
            pending = [fn for fn in inputs if fn not in self._sources]
            if pending:
                stack.extend(pending)
                continue
            direct = {self._outputs[fn] for fn, _ in current.next_functions if fn is not None and fn in self._outputs}
            self._sources[current] = frozenset(direct).union(*(self._sources[fn] for fn in inputs))
            stack.pop()
        return self._sources[node]
