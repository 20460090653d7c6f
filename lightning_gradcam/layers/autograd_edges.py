"""Edges of the graph of autograd, which identify the tensors that its nodes computed."""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

Edge: TypeAlias = tuple[Any, int]
"""A node of the graph, and the index of one of its outputs."""


def get_edge(tensor: Tensor) -> Edge | None:
    """Return the node that computed a tensor, or that stands for a tensor that begins a graph; None without a graph."""
    if not tensor.requires_grad:
        return None
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def get_shape(node: Any, index: int) -> tuple[int, ...]:
    """Return the shape of a node's output."""
    return tuple(node._input_metadata[index].shape)  # the gradient that goes into the node has this shape
