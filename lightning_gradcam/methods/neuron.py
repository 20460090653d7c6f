"""Single neurons as targets: explanations of the activation of one channel at one position of a layer."""

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
"""A channel of a layer and a position on the layer's grid: ``(channel, i, j)`` for images."""


def to_neuron(neuron: object) -> Neuron | None:
    """Convert any sequence of integers to a neuron.

    Raises:
        TypeError: The value is not a sequence of integers.
        ValueError: An integer is negative, or the position is missing.

    >>> to_neuron([5, 2, 2])
    (5, 2, 2)
    """
    if neuron is None:
        return None
    numbers = tuple(neuron) if isinstance(neuron, Sequence) and not isinstance(neuron, str) else ()
    if not numbers or any(not isinstance(number, int) or isinstance(number, bool) for number in numbers):
        raise TypeError(f"Expected `neuron` to be a channel and a position, (channel, i, j), but got {neuron!r}.")
    if len(numbers) < 2 or min(numbers) < 0:
        raise ValueError(
            f"Expected `neuron` to be a channel and a position of at least 0, (channel, i, j), but got {neuron!r}."
        )
    return numbers


def name_method(method: str, neuron: Neuron | None) -> str:
    """Append the neuron, if there is one, to a method's name.

    >>> name_method("saliency", (5, 2, 2)), name_method("saliency", None)
    ('saliency of neuron 5 at 2, 2', 'saliency')
    """
    return method if neuron is None else f"{method} of neuron {neuron[0]} at {', '.join(map(str, neuron[1:]))}"


def score_neuron(passes: CapturedPass, key: str, neuron: Neuron) -> Score:
    """Return the score that is a neuron's activation at the layer of that key.

    Raises:
        ValueError: The layer does not have this neuron.
    """
    shape = tuple(passes.activations[key].shape[1:])
    if len(shape) != len(neuron) or any(index >= size for index, size in zip(neuron, shape, strict=False)):
        raise ValueError(
            f"Expected `neuron` to be a channel and a position in layer {key!r}, whose output has shape {shape} "
            f"(channels first), but got {neuron}."
        )

    def forward(_model: Any, probe: Probe) -> Any:
        return passes.run(probe)

    def take_first_tensor(output: Any, _probe: Probe) -> Tensor:
        # `capture` needs a target, but this pass is only read at the layer.
        return next(list_float_tensors(output))

    def score(probe: Probe, _indices: Sequence[int]) -> Tensor:
        [neuron_pass] = capture(
            passes.model, probe, [passes.layers[key]], forward, [take_first_tensor], differentiable=True
        )
        index: Any = (slice(None), *neuron)
        return neuron_pass.activations[key][index]

    return score
