"""The captured forward pass that a method works with, and the further passes that it can request."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import ComparableTarget, FreezableTarget, Target
from lightning_gradcam.utils.cell_centers import CellCenters


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one call in a forward pass, head by head.

    Args:
        weights: ``(n, heads, L, L)``, at least float32: how much each token (a row) attends to each other token; rows
            sum to 1.
        gradient: The score's gradient with respect to the weights; None if it was not requested.
    """

    weights: Tensor
    gradient: Tensor | None = None


class ForwardFromLayer(Protocol):
    """Forward passes over one image that start at a layer: everything before the layer is shared and runs once."""

    def __call__(self, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        """Return the model's output for ``count`` copies of the image, with the layer's output changed.

        Args:
            count: Number of copies.
            change: Maps the layer's output, unmodified and with ``count`` equal rows, to what the layer returns
                instead.
        """


@dataclass(frozen=True)
class CapturedPass:
    """A forward pass with its outputs at the layers, and the means for further passes.

    Args:
        model: Isolated, see `isolation.isolated`.
        probe: The images.
        target: The explained score.
        output: The model's output for the images.
        tensors: Per layer key, the layer's output, unmodified and part of the graph from there to the score.
        layers: The captured layers by key.
        run: Runs another forward pass, of any probe; it captures nothing and records a graph only if grad is on.
        forward_from_layer: Creates the passes that start at a layer, for a probe of one image.
        capture_attention: Runs another forward pass of a probe and returns all attention in order of execution; with a
            target, it also computes the target's gradients.
        elsewhere: Locations of evidence that are not layers, by key.
        retain_graph: Whether the graph is needed after this pass's gradients. If not, it is freed while `gradients`
            runs, which takes a tenth off the time of several layers: memory is reused while it is in the cache.
        differentiable: Whether activations and gradients are part of the graph, so that a loss can be computed from
            them.
        centers: Per layer key, the centers of the cells in the images; layers without an entry cover them evenly.
        gradients_by_scored: Gradients that passes of the same output have computed, by what their targets scored, see
            `ComparableTarget`. A detector's backward pass runs through all proposals, so it can take longer than the
            forward pass.
    """

    model: nn.Module
    probe: Probe
    target: Target
    output: Any
    tensors: Mapping[str, Tensor]
    layers: Mapping[str, Layer]
    run: Callable[[Probe], Any]
    forward_from_layer: Callable[[Layer, Probe], ForwardFromLayer]
    capture_attention: Callable[[Probe, Target | None], Sequence[AttentionMap]]
    elsewhere: Mapping[str, Layer] = field(default_factory=dict)
    retain_graph: bool = True
    differentiable: bool = False
    centers: Mapping[str, CellCenters] = field(default_factory=dict)
    gradients_by_scored: dict[Hashable, Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def locations(self) -> Mapping[str, Layer]:
        """All locations of evidence by key: layers, input pixels, attention."""
        return {**self.layers, **self.elsewhere}

    @cached_property
    def activations(self) -> Mapping[str, Tensor]:
        """The outputs ``(n, C, *s)`` per layer, in at least float32."""
        tensors = self.tensors if self.differentiable else {key: t.detach() for key, t in self.tensors.items()}
        return {key: self._to_grid(key, tensor) for key, tensor in tensors.items()}

    @cached_property
    def gradients(self) -> Mapping[str, Tensor]:
        """The score's gradients ``(n, C, *s)`` per layer, in at least float32; zero if it does not depend on the layer.

        Raises:
            NotExplainableError: The score carries no gradient.
        """
        scored = self._find_scored()
        if scored is None:
            return self._compute_gradients()
        if scored not in self.gradients_by_scored:
            self.gradients_by_scored[scored] = self._compute_gradients()
        return self.gradients_by_scored[scored]

    def _find_scored(self) -> Hashable | None:
        """Return what the target scores; None if finding it out would wait for the device."""
        target = self.target
        return target.find_scored(self.output, self.probe) if isinstance(target, ComparableTarget) else None

    def _compute_gradients(self) -> dict[str, Tensor]:
        """Run the backward pass."""
        with torch.enable_grad():
            scores = self.target(self.output, self.probe)
            total = scores.sum()
        check_has_gradient(scores)
        gradients = torch.autograd.grad(
            total,
            list(self.tensors.values()),
            retain_graph=self.differentiable or self.retain_graph,
            create_graph=self.differentiable,
            allow_unused=True,
        )
        return {
            key: self._to_grid(key, torch.zeros_like(tensor) if gradient is None else gradient)
            for (key, tensor), gradient in zip(self.tensors.items(), gradients, strict=True)
        }

    @cached_property
    def frozen_target(self) -> Target:
        """The target with its choice in this pass; the predicted class, for example, is the same for other images."""
        return self.target.freeze(self.output, self.probe) if isinstance(self.target, FreezableTarget) else self.target

    def scores(self, probe: Probe, rows: Sequence[int] | None = None) -> Tensor:
        """Compute the explained score of other images, such as masked ones, by a forward pass: ``(n,)`` or ``(n, k)``.

        Args:
            probe: The images with their labels and other fields.
            rows: The rows of this pass's probe that they come from; by default all, in the same order.
        """
        return self._select_target(rows)(self.run(probe), probe)

    def scores_from_layer(self, key: str, row: int) -> Callable[[int, Callable[[Tensor], Tensor]], Tensor]:
        """Return a function that computes the explained score of one image with a changed layer output.

        Args:
            key: The layer's.
            row: The image's row in the probe.

        Returns:
            A function of ``(count, change)``, see `ForwardFromLayer`, to scores ``(count,)`` or ``(count, k)``.
        """
        forward = self.forward_from_layer(self.layers[key], self.probe[[row]])

        def compute_scores(count: int, change: Callable[[Tensor], Tensor]) -> Tensor:
            rows = [row] * count
            return self._select_target(rows)(forward(count, change), self.probe[rows])

        return compute_scores

    def attention(self, gradients: bool = False) -> Sequence[AttentionMap]:
        """Capture all attention over the images in another forward pass, in order of execution.

        Args:
            gradients: Whether to compute the explained score's gradient as well, which costs a whole backward pass.

        Raises:
            NotExplainableError: The score carries no gradient.
        """
        return self.capture_attention(self.probe, self.frozen_target if gradients else None)

    def _select_target(self, rows: Sequence[int] | None) -> Target:
        target = self.frozen_target
        return target.select_rows(rows) if rows is not None and isinstance(target, FreezableTarget) else target

    def _to_grid(self, key: str, tensor: Tensor) -> Tensor:
        grid = self.layers[key].to_grid(tensor)
        return grid.float() if grid.dtype in (torch.float16, torch.bfloat16) else grid


def check_has_gradient(scores: Tensor) -> None:
    """Check that scores carry a gradient.

    Raises:
        NotExplainableError: They do not.
    """
    if not scores.requires_grad:
        raise NotExplainableError(
            "The score carries no gradient, even with grad mode on: the model's forward or the target cuts the graph "
            "(no_grad, detach, or a result computed outside of PyTorch). Pass `forward=` or `target=` without that "
            "step."
        )
