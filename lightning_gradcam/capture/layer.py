"""Layers to explain, and records of what each layer returned in a forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_gradcam.capture.layouts import channels_first, find_channels_dim, holds_tokens
from lightning_gradcam.utils.cell_centers import CellCenters

IMAGES = -1
"""Stands for the images among the indices of a trace's outputs."""

PIXELS, ATTENTION = "input pixels", "all attention"
"""Names of locations of evidence that are not module outputs: the images, and all attention of a pass together."""


@dataclass(frozen=True)
class Layer:
    """A layer whose output is explained.

    Args:
        name: The module's name in ``named_modules``. If several modules return the same tensor, the outermost.
        call: Index of the call, from 0, if the module runs several times in one pass; -1 is the last.
        reason: Why the layer was selected, for messages.
        to_grid: Turns its output into ``(n, C, *s)``.
        calls: Indices of calls whose evidence is summed; if there are any, they replace ``call``.
    """

    name: str
    call: int = -1
    reason: str = ""
    to_grid: Callable[[Tensor], Tensor] = channels_first
    calls: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The layer's key in explanations."""
        return self.name if self.call == -1 else f"{self.name}[{self.call}]"

    @property
    def is_module(self) -> bool:
        """Whether it is a module's output, unlike the input pixels and attention."""
        return self.name not in (PIXELS, ATTENTION)


@dataclass(frozen=True)
class LayerRecord:
    """The record of a module's output in a traced pass.

    Args:
        name: The module's name. If several modules return the same tensor, the outermost.
        kind: Class name of the module that created the tensor, which is the innermost of these.
        shape: Shape of the tensor, ``(n, ...)``.
        grid: Its spatial dimensions; None if it has no spatial positions.
        call: Index of the module's call; -1 for the last (and thus for the only) one.
        reaches: Whether the score's gradient reaches the tensor; for tokens, whether it reaches patches.
        touched: Fraction of spatial positions with a nonzero gradient in at least one image.
        to_grid: Turns the tensor into ``(n, C, *grid)``.
        inner: The other modules that returned the same tensor, the innermost first.
        answers: Whether the tensor is the model's output already: class scores at each spatial position.
        reads: Indices in the trace of the outputs that it was computed from, without another one in between; `IMAGES`
            for the images. None if unknown: then from the one before it.
        is_scored: Whether the score was computed from it without another output in between.
        is_output: Whether the model's output holds the tensor itself.
        misplaced: Whether changes of the images were seen not to change its cells at their own places.
        centers: Centers of the receptive fields of its grid's cells; None if they are unknown.
        inner_calls: Indices of the calls of the ``inner`` modules, from 0.
        num_calls: How often modules that returned it ran in the pass, by name; once if left out.
        called_in: Name of the module that called the outermost one; empty if unknown, or if that is the whole model.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    grid: tuple[int, ...] | None
    call: int = -1
    reaches: bool = True
    touched: float = 1.0
    to_grid: Callable[[Tensor], Tensor] = channels_first
    inner: tuple[str, ...] = ()
    answers: bool = False
    misplaced: bool = False
    reads: frozenset[int] | None = None
    is_scored: bool = False
    is_output: bool = False
    centers: CellCenters | None = None
    inner_calls: tuple[int, ...] = ()
    num_calls: Mapping[str, int] = field(default_factory=dict)
    called_in: str = ""

    @property
    def path(self) -> str:
        """The module's name at the place where it was called: a shared module lies in every module that calls it."""
        if not self.called_in or self.name.startswith(f"{self.called_in}."):
            return self.name
        return f"{self.called_in}.{self.name.rpartition('.')[2]}"

    @property
    def key(self) -> tuple[str, int]:
        """The module's name and the index of its call, which identify the output."""
        return self.name, self.call

    def find_call(self, name: str) -> int | None:
        """Return the index of the call in which module ``name`` returned the tensor, -1 for its last; else None."""
        if name == self.name:
            return self.call
        return dict(zip(self.inner, self.inner_calls or [-1] * len(self.inner), strict=True)).get(name)

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.shape[find_channels_dim(self.to_grid)]

    @property
    def tokens(self) -> bool:
        """Whether the grid is one of tokens."""
        return holds_tokens(self.to_grid)

    @property
    def cells(self) -> int:
        """The number of spatial positions."""
        return math.prod(self.grid) if self.grid else 0


def is_vanishing(records: Iterable[LayerRecord]) -> bool:
    """Return whether the gradient is zero at all spatial positions, which leaves open which tokens it can reach."""
    return not any(record.touched for record in records if record.cells > 1)


def split_layers(layers: Sequence[Layer]) -> tuple[list[Layer], dict[str, Layer]]:
    """Split layers into module outputs and, by key, the other locations.

    >>> split_layers([Layer("conv"), Layer(PIXELS)])[1].keys()
    dict_keys(['input pixels'])
    """
    modules = [layer for layer in layers if layer.is_module]
    return modules, {layer.key: layer for layer in layers if not layer.is_module}
