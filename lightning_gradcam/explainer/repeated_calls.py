"""Layers whose evidence is a sum over several calls of a module: split for the pass, summed after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import Layer


def split_calls(layers: Sequence[Layer]) -> list[Layer]:
    """List the layers with each summed call as a layer of its own, each once.

    >>> [layer.key for layer in split_calls([Layer("a"), Layer("b", calls=(0, 1)), Layer("b", 1)])]
    ['a', 'b[0]', 'b[1]']
    """
    split = [call for layer in layers for call in _list_calls(layer)]
    return list({layer.key: layer for layer in split}.values())


def sum_calls(evidence: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Sum the evidence of the calls of each layer; keys that belong to no layer are kept.

    >>> sum_calls({"b[0]": torch.ones(2), "b[1]": torch.ones(2)}, [Layer("b", calls=(0, 1))])
    {'b': tensor([2., 2.])}
    """
    keys = {layer.key: [call.key for call in _list_calls(layer)] for layer in layers}
    sums = {
        key: torch.stack([evidence[call] for call in calls]).sum(0) if len(calls) > 1 else evidence[calls[0]]
        for key, calls in keys.items()
        if all(call in evidence for call in calls)
    }
    used = {call for calls in keys.values() for call in calls}
    return {**sums, **{key: tensor for key, tensor in evidence.items() if key not in used}}


def join_calls(tensors: Mapping[str, Tensor], layer: Layer) -> Tensor:
    """Join the activations or gradients of a layer's calls along the channels."""
    calls = [tensors[call.key] for call in _list_calls(layer)]
    return calls[0] if len(calls) == 1 else torch.cat(calls, 1)


def get_grid(activations: Mapping[str, Tensor], layer: Layer) -> tuple[int, ...]:
    """Return the grid of a layer's maps, which is the same in all of its calls."""
    return tuple(activations[_list_calls(layer)[0].key].shape[2:])


def _list_calls(layer: Layer) -> list[Layer]:
    return [replace(layer, call=call, calls=()) for call in layer.calls] or [layer]
