"""Parts of a model's output: their shapes and names, and what their numbers show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.capture.pre_softmax import NORMALIZATIONS, PROBABILITIES, find_softmax_input
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.detection import find_boxes
from lightning_gradcam.targets.embeddings import EMBEDDING_NAMES
from lightning_gradcam.targets.logits import are_probabilities, list_items

LENGTH_TOLERANCE = 1e-5
"""Largest distance from 1 of the length of a normalized embedding, of a dtype that is as precise as that."""


@dataclass(frozen=True)
class Vector:
    """A part ``(N, width)`` of an output.

    Args:
        name: Its key or position; "" for an output that is one tensor.
        width: Numbers per image.
        embeds: Why it is an embedding, or "".
        is_probability: Whether it is the result of a softmax or sigmoid.
        is_normalized: Whether it comes right from a layer normalization, as no logits do.
        maker: The module that returned it, if that is known.
        siblings: The other modules in the same container.
    """

    name: str
    width: int
    embeds: str = ""
    is_probability: bool = False
    is_normalized: bool = False
    maker: str = ""
    siblings: tuple[str, ...] = ()

    @property
    def role(self) -> str:
        """What the part is for, from its name or else its module's: "kind" for "kind_head", and "" without names."""
        return get_role(self.name) or get_role(self.maker)


def get_role(name: str) -> str:
    """Return the last part of a name without words that all heads and labels have; "" for a position.

    >>> get_role("heads.kind_head"), get_role("kind_labels"), get_role("batch.1")
    ('kind', 'kind', '')
    """
    last = name.split(".")[-1].lower()
    role = re.sub(rf"^({_ROLE_WORDS})_|_({_ROLE_WORDS})$", "", last)
    return "" if role.isdigit() or re.fullmatch(_ROLE_WORDS, role) else role


_ROLE_WORDS = "head|fc|cls|out|output|classifier|logits?|labels?|targets?|y"
"""Words in the names of heads and labels, as a pattern."""


@dataclass(frozen=True)
class DenseMap:
    """A part ``(N, channels, *size)`` of an output, where `find_pixel_scores` looks for one.

    Args:
        name: Its key or position; "" for an output that is one tensor.
        channels: Numbers per position.
        size: Positions per spatial dimension.
        maker: The module that returned it, if that is known.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    maker: str = ""


@dataclass(frozen=True)
class OutputParts:
    """The parts of an output that can be explained by themselves, in the order in which they are tried.

    Args:
        vectors: Those with one row of numbers per image.
        maps: Those with numbers at each position of an image.
        has_boxes: Whether the output is the boxes of each image.
        queries: The names and shapes of parts with several rows of numbers per image, as of object queries, or "".
        type_name: The class of the output.
        needs_head: Whether the output has more rows of numbers than one, so that the explained one must be named.
    """

    vectors: tuple[Vector, ...] = ()
    maps: tuple[DenseMap, ...] = ()
    has_boxes: bool = False
    queries: str = ""
    type_name: str = ""
    needs_head: bool = False

    def with_makers(self, records: Sequence[LayerRecord], model: nn.Module) -> OutputParts:
        """Return the parts with the module that returned each part, where a single one returned such a tensor."""
        modules = dict(model.named_modules())
        vectors = []
        for vector in self.vectors:
            makers = [r.name for r in records if r.is_output and r.shape[1:] == (vector.width,)]
            if len(makers) == 1:
                container = modules[makers[0].rpartition(".")[0]]
                siblings = tuple(name for name, _ in container.named_children() if name != makers[0].split(".")[-1])
                vector = replace(vector, maker=makers[0], siblings=siblings)
            vectors.append(vector)
        maps = []
        for dense in self.maps:
            makers = [r.name for r in records if r.is_output and r.shape[1:] == (dense.channels, *dense.size)]
            maps.append(replace(dense, maker=makers[0] if len(makers) == 1 else ""))
        return replace(self, vectors=tuple(vectors), maps=tuple(maps))


def describe_output(output: Any, probe: Probe) -> OutputParts:
    """List the parts of a model's output for the images of ``probe``. (Waits for the device.)

    >>> probe = Probe(torch.rand(2, 3, 8, 8))
    >>> describe_output({"aux": torch.rand(2, 4), "out": torch.rand(2, 5, 8, 8)}, probe).maps
    (DenseMap(name='out', channels=5, size=(8, 8), maker=''),)
    """
    dimensions = len(probe.size)
    vectors, maps = [], []
    tensors = [(name, tensor) for name, tensor in list_items(output) if tensor.is_floating_point()]
    depends = any(tensor.requires_grad for _, tensor in tensors)  # else all parts are alike: the model cuts the graph
    for name, tensor in tensors:
        if depends and not tensor.requires_grad:
            continue  # such as the mask of a masked autoencoder
        if tensor.ndim in (1, 2):
            vectors.append(_describe_vector(name, tensor))
        elif dimensions > 1 and tensor.ndim == dimensions + 2 and _may_be_scores(output, name):
            maps.append(DenseMap(name, tensor.shape[1], tuple(tensor.shape[2:])))
    has_boxes, queries = find_boxes(output) is not None, _describe_queries(output)
    needs_head = sum(tensor.ndim in (1, 2) for _, tensor in tensors) > 1
    return OutputParts(tuple(vectors), tuple(maps), has_boxes, queries, type(output).__name__, needs_head)


def _describe_vector(name: str, tensor: Tensor) -> Vector:
    """Describe a part with one row of numbers per image."""
    rows = tensor.detach().reshape(len(tensor), -1).float()
    is_probability = find_softmax_input(tensor, PROBABILITIES) is not None or "Sigmoid" in type(tensor.grad_fn).__name__
    if rows.shape[1] > 1:
        is_probability = is_probability or are_probabilities(rows)
    embeds = ""
    if name.split(".")[-1] in EMBEDDING_NAMES:
        embeds = f"its name is {name!r}"
    elif rows.shape[1] > 1 and not is_probability:
        tolerance = max(LENGTH_TOLERANCE, torch.finfo(tensor.dtype).eps)
        has_unit_length = bool(((rows.norm(dim=1) - 1).abs() < tolerance).all())
        if has_unit_length or find_softmax_input(tensor, NORMALIZATIONS) is not None:
            embeds = "all rows have length 1"
    return Vector(name, rows.shape[1], embeds, is_probability, _comes_from_normalization(tensor))


def _comes_from_normalization(tensor: Tensor) -> bool:
    """Return whether the last operation that changed the values was a layer normalization."""
    node = tensor.grad_fn
    while node is not None and re.match(_MOVES, type(node).__name__):
        node = node.next_functions[0][0]
    return "LayerNorm" in type(node).__name__


_MOVES = "(Clone|View|Reshape|UnsafeView|Squeeze|Unsqueeze|Select|Slice|Alias|ToCopy|Transpose|Permute)Backward"
"""Operations of autograd that change no values."""


def _may_be_scores(output: Any, name: str) -> bool:
    """Return whether `find_pixel_scores` looks at a part: under other names, mappings hold features."""
    return not isinstance(output, Mapping) or name.split(".")[0] in ("out", "logits")


def _describe_queries(output: Any) -> str:
    """Return the parts ``(N, queries, ...)`` of an output of named parts that are logits, boxes or masks."""
    if isinstance(output, Mapping):
        items = list(output.items())
    else:
        items = list(vars(output).items()) if hasattr(output, "logits") and hasattr(output, "__dict__") else []
    queries = [
        f"{name} {tuple(value.shape)}"
        for name, value in items
        if isinstance(value, Tensor) and value.ndim > 2 and ("logits" in name or "boxes" in name)
    ]
    return ", ".join(queries) if len(queries) > 1 else ""
