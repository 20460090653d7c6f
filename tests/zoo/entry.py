"""An entry of the zoo: another library's model, and what is right for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Reader = Callable[[Tensor], Tensor]
"""Turns a layer's output into ``(n, C, *grid)``, without code of the package."""


def channels_first(output: Tensor) -> Tensor:
    return output


def channels_last(output: Tensor) -> Tensor:
    return output.movedim(-1, 1)


def tokens(*grid: int, before: int = 0) -> Reader:
    """Read ``(n, before + cells + after, C)`` as a grid in order of rows."""

    def read(output: Tensor) -> Tensor:
        cells = output[:, before : before + math.prod(grid)]
        return cells.transpose(1, 2).unflatten(2, grid)

    return read


def list_tensors(output: Any) -> list[Tensor]:
    """List the floating-point tensors of an output of any structure."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for item in output for tensor in list_tensors(item)]
    return []


def first_score(output: Any) -> Tensor:
    """Return a score ``(n,)`` that depends on every number of the first tensor, and cancels none."""
    return list_tensors(output)[0].flatten(1).logsumexp(1)


@dataclass(frozen=True)
class Entry:
    """A model, and what is right for it.

    Args:
        make: Creates the model; its weights are random.
        layers: A regular expression for the layers that a person who knows the model would take.
        grid: The spatial size of the layer.
        size: ``(C, *spatial)`` of an image.
        kind: What the output is, see `explain(output=)`; "" where nothing but the user can tell.
        read: How the layer's output lies.
        call: The call of the layer that is explained.
        labels: Creates labels of a batch; None for none.
        score: The score of an output ``(n,)`` that the map is compared for.
        forward: A callable of ``(model, probe)`` for models that take more than images.
        local: Whether a changed patch must change the layer most at its own place.
        known: Known faults of the package, by what they make fail: "kind", "layer", "map" or "place".
    """

    make: Callable[[], nn.Module]
    layers: str
    grid: tuple[int, ...]
    size: tuple[int, ...] = (3, 64, 64)
    kind: str = "classes"
    read: Reader = channels_first
    call: int = -1
    labels: Callable[[int], Any] | None = None
    score: Callable[[Any], Tensor] = first_score
    forward: Callable[[nn.Module, Any], Any] | None = None
    local: bool = True
    known: Mapping[str, str] = field(default_factory=dict)

    def create(self) -> nn.Module:
        """Create the model in evaluation mode, with weights that leave no layer at zero."""
        torch.manual_seed(0)
        model = self.make().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                # LayerScale begins at 1e-5, and some BatchNorms and heads at 0: the score would depend on nothing.
                if parameter.ndim < 2:
                    parameter.copy_(noise + (1 if name.endswith(("weight", "gamma", "lambda1")) else 0))
                elif not parameter.any():
                    parameter.copy_(noise)
        return model

    def batch(self, count: int = 2) -> Tensor:
        """Create images."""
        return torch.rand(count, *self.size, generator=torch.Generator().manual_seed(2))
