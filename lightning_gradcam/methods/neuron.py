"""Single neurons in the place of a class: what makes a channel of a layer fire at one of its places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import Tensor

from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.outputs import list_float_tensors
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.methods.captum_adapter import Score
from lightning_gradcam.probe.probe import Probe

Neuron: TypeAlias = tuple[int, ...]
"""A channel of a layer and its place on the layer's grid: ``(channel, i, j)`` of images."""


def to_neuron(neuron: object) -> Neuron | None:
    """A neuron as a tuple, whatever sequence it came as.

    Raises:
        TypeError: It is no sequence of integers.
        ValueError: One of them is under 0, or there is a channel only.

    >>> to_neuron([5, 2, 2])
    (5, 2, 2)
    """
    if neuron is None:
        return None
    numbers = tuple(neuron) if isinstance(neuron, Sequence) and not isinstance(neuron, str) else ()
    if not numbers or any(not isinstance(number, int) or isinstance(number, bool) for number in numbers):
        raise TypeError(f"Expected `neuron` to be a channel and a place, (channel, i, j), but got {neuron!r}.")
    if len(numbers) < 2 or min(numbers) < 0:
        raise ValueError(f"Expected a channel and a place of at least 0, (channel, i, j), but got {neuron!r}.")
    return numbers


def name_method(method: str, neuron: Neuron | None) -> str:
    """How pictures and keys name a method of a neuron, or of the target.

    >>> name_method("saliency", (5, 2, 2)), name_method("saliency", None)
    ('saliency of neuron 5 at 2, 2', 'saliency')
    """
    return method if neuron is None else f"{method} of neuron {neuron[0]} at {', '.join(map(str, neuron[1:]))}"


def score_neuron(passes: CapturedPass, key: str, neuron: Neuron) -> Score:
    """What a neuron of the layer puts out for other images.

    Raises:
        ValueError: The layer has no such neuron.
    """
    shape = tuple(passes.activations[key].shape[1:])
    if len(shape) != len(neuron) or any(at >= size for at, size in zip(neuron, shape, strict=False)):
        raise ValueError(
            f"Expected `neuron` to be a channel and a place in layer {key!r}, whose output is {shape} (channels, then "
            f"places), but got {neuron}."
        )

    def forward(_model: Any, probe: Probe) -> Any:
        return passes.run(probe)

    def score(probe: Probe, _rows: Sequence[int]) -> Tensor:
        layer = passes.layers[key]
        targets = [
            lambda output, _probe: next(list_float_tensors(output))
        ]  # of no interest: the pass ends at the neuron
        [found] = capture(passes.model, probe, [layer], forward, targets, differentiable=True)
        at: Any = (slice(None), *neuron)
        return found.activations[key][at]

    return score
