"""One forward pass and the means for more: what a method may work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import HoldableTarget, Target


@dataclass(frozen=True)
class AttentionMap:
    """One attention of a pass, head by head.

    Args:
        weights: ``(n, heads, L, L)``, at least float32: how much each token (a row) takes from which; rows sum up to 1.
        gradient: Of the score, with respect to the weights; None where it was not asked for.
    """

    weights: Tensor
    gradient: Tensor | None = None


class ForwardFromLayer(Protocol):
    """Passes over one image from a layer on: what comes before the layer is the same in all of them, and runs once."""

    def __call__(self, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        """The model's output for so many rows of the image.

        Args:
            count: How many rows.
            change: From the layer's output, as it came, with so many equal rows, to what it hands on instead.
        """


@dataclass(frozen=True)
class CapturedPass:
    """One forward pass, what it left at the layers, and the means for more: what a method may work with.

    Args:
        model: Isolated, see `isolation.isolated`.
        probe: The images.
        target: The score that is explained.
        output: What the model returned for them.
        tensors: Per layer key, the layer's output as it came, part of the graph from there to the score.
        layers: Where it was captured.
        run: Another forward pass, of any probe; nothing of it is captured, and grad is kept only where it is on.
        restart: Passes from a layer on, over the one image of a probe.
        attend: Another forward pass of a probe, of which all attention is kept, in order of execution; with a target,
            its gradients, too.
        elsewhere: Places of evidence that are no layers.
        shared: Whether others work on the same graph after this one. Else it goes, piece by piece, while `gradients`
            are computed, which takes a tenth off the time of several layers: memory is used again while it is warm.
        differentiable: Whether activations and gradients are part of the graph, so that a loss can be made of them.
    """

    model: nn.Module
    probe: Probe
    target: Target
    output: Any
    tensors: Mapping[str, Tensor]
    layers: Mapping[str, Layer]
    run: Callable[[Probe], Any]
    restart: Callable[[Layer, Probe], ForwardFromLayer]
    attend: Callable[[Probe, Target | None], Sequence[AttentionMap]]
    elsewhere: Mapping[str, Layer] = field(default_factory=dict)
    shared: bool = True
    differentiable: bool = False

    @property
    def locations(self) -> Mapping[str, Layer]:
        """Where evidence may lie, by key."""
        return {**self.layers, **self.elsewhere}

    @cached_property
    def activations(self) -> Mapping[str, Tensor]:
        """``(n, C, *s)`` per layer, in at least float32."""
        tensors = self.tensors if self.differentiable else {key: t.detach() for key, t in self.tensors.items()}
        return {key: self._grid(key, tensor) for key, tensor in tensors.items()}

    @cached_property
    def gradients(self) -> Mapping[str, Tensor]:
        """``(n, C, *s)`` per layer, in at least float32; zero where the score does not depend on the layer."""
        with torch.enable_grad():
            scores = self.target(self.output, self.probe)
            total = scores.sum()
        check_has_gradient(scores)
        tensors, again = list(self.tensors.values()), self.differentiable
        kept = again or self.shared
        found = torch.autograd.grad(total, tensors, retain_graph=kept, create_graph=again, allow_unused=True)
        return {
            key: self._grid(key, torch.zeros_like(tensor) if gradient is None else gradient)
            for (key, tensor), gradient in zip(self.tensors.items(), found, strict=True)
        }

    @cached_property
    def freeze(self) -> Target:
        """The target with what it chose in this pass: the predicted class stays the same class in other images."""
        return self.target.freeze(self.output, self.probe) if isinstance(self.target, HoldableTarget) else self.target

    def scores(self, probe: Probe, rows: Sequence[int] | None = None) -> Tensor:
        """The explained score of other images (masked ones, say): a forward pass, ``(n,)`` or ``(n, k)``.

        Args:
            probe: The images, with all that belongs to them.
            rows: Which rows of this pass's probe they come from; by default they are as many, in the same order.
        """
        return self._held_for(rows)(self.run(probe), probe)

    def scores_from_layer(self, key: str, row: int) -> Callable[[int, Callable[[Tensor], Tensor]], Tensor]:
        """What the explained score of one image becomes where a layer hands on something else.

        Args:
            key: The layer's.
            row: Which image.

        Returns:
            A function of ``(count, change)``, see `ForwardFromLayer`, to scores ``(count,)`` or ``(count, k)``.
        """
        behind = self.restart(self.layers[key], self.probe[[row]])

        def scores(count: int, change: Callable[[Tensor], Tensor]) -> Tensor:
            rows = [row] * count
            return self._held_for(rows)(behind(count, change), self.probe[rows])

        return scores

    def attention(self, gradients: bool = False) -> Sequence[AttentionMap]:
        """All attention over the images, in order of execution, from one more pass.

        Args:
            gradients: Whether the explained score's gradient is asked for, too, which costs a whole backward pass.

        Raises:
            NotExplainableError: The score carries no gradient.
        """
        return self.attend(self.probe, self.freeze if gradients else None)

    def _held_for(self, rows: Sequence[int] | None) -> Target:
        held = self.freeze
        return held.select_rows(rows) if rows is not None and isinstance(held, HoldableTarget) else held

    def _grid(self, key: str, tensor: Tensor) -> Tensor:
        grid = self.layers[key].to_grid(tensor)
        return grid.float() if grid.dtype in (torch.float16, torch.bfloat16) else grid


def check_has_gradient(scores: Tensor) -> None:
    """Raise a NotExplainableError where no gradient of the scores can be asked for."""
    if not scores.requires_grad:
        raise NotExplainableError(
            "The score carries no gradient, even with grad switched on: the model's forward or the target cuts the "
            "graph (no_grad, detach, or a result computed outside of PyTorch). Pass `forward=` or `target=` without "
            "that step."
        )
