"""One map from several: of several layers, or of an image and its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.explainer.explanation import FLAWS, UNASKED, Explanation, find_status
from lightning_gradcam.utils.interpolation import resize

Fuse: TypeAlias = Literal["mean", "max", "weighted"]
FUSED = "fused"
"""The key of what several layers say together."""

_RULES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(1),
    "max": lambda maps: maps.amax(1),
    "weighted": lambda maps: torch.einsum("nl...,l->n...", maps, _rising(maps)),
}


def _rising(maps: Tensor) -> Tensor:
    weights = torch.arange(1, maps.shape[1] + 1, device=maps.device, dtype=maps.dtype)
    return weights / weights.sum()


def check_fuse(fuse: str | None, layers: Sequence[Layer] | None = None, at_layers: bool = True) -> None:
    """Raise a ValueError where there is no such rule, only one layer, or a method whose evidence lies at none."""
    if fuse is not None and fuse not in _RULES:
        raise ValueError(f"Expected `fuse` to be None, {', '.join(map(repr, get_args(Fuse)))}, but got {fuse!r}.")
    if fuse is not None and not at_layers:
        raise ValueError(f"Expected methods that are read at layers beside `fuse={fuse!r}`, but one of them is not.")
    if fuse is not None and layers is not None and len(layers) < 2:
        raise ValueError(
            f"Expected several layers for `fuse={fuse!r}`, but `layers` chose one, {layers[0].key!r}. Pass "
            "`layers='stages'` (the last layer of every resolution), or a list of names."
        )


def check_flips(flips: object) -> None:
    """Raise a TypeError for what is neither True nor False."""
    if not isinstance(flips, bool):
        raise TypeError(f"Expected `flips` to be True or False, but got {flips!r}.")


def sort_by_execution(layers: Sequence[Layer], shapes: Sequence[LayerRecord]) -> list[Layer]:
    """The layers in order of execution, as far as the trace has seen them."""
    ran = {name: i for i, shape in enumerate(shapes) for name in (shape.name, *shape.inner)}
    ran |= {Layer(shape.name, shape.call).key: i for i, shape in enumerate(shapes)}
    return sorted(layers, key=lambda layer: ran.get(layer.key, ran.get(layer.name, len(shapes))))


def fuse_maps(evidence: Sequence[Tensor], codes: Sequence[Tensor], fuse: Fuse) -> Tensor:
    r"""One map from those of several layers, on the finest of their grids.

    Each layer's :math:`\operatorname{relu}(E_l) / \max_{hw} E_l` is enlarged, and of these the mean is taken, the
    maximum, or the mean with weights 1, 2, ... from the earliest layer to the deepest.

    Args:
        evidence: ``(N, *s)`` for each layer, in order of execution.
        codes: ``(N,)`` their map_status; a map that cannot be read counts as zero.
        fuse: ``"mean"``, ``"max"`` or ``"weighted"``.

    Returns:
        ``(N, *s)`` in [0, 1].

    >>> early, deep = torch.tensor([[[4.0, 0.0]]]), torch.tensor([[[1.0, 2.0]]])
    >>> fuse_maps([early, deep], [torch.zeros(1), torch.zeros(1)], "weighted")
    tensor([[[0.6667, 0.6667]]])
    """
    finest = max(evidence, key=lambda tensor: tensor[0].numel()).shape[1:]
    maps = []
    for tensor, code in zip(evidence, codes, strict=True):
        spread = (-1, *[1] * (tensor.ndim - 1))
        positive = torch.where((code == 0).reshape(spread), tensor.relu(), 0)
        largest = positive.flatten(1).amax(1).reshape(spread)
        maps.append(resize(positive / torch.where(largest == 0, 1, largest), tuple(finest)))
    return _RULES[fuse](torch.stack(maps, 1))


def add_fused(explanation: Explanation, methods: Sequence[str], order: Sequence[Layer], fuse: Fuse) -> Explanation:
    """The explanation with what its layers say together in front, one map per method.

    Args:
        explanation: Of several layers.
        methods: The methods' names.
        order: The layers, in order of execution.
        fuse: See `fuse_maps`.
    """
    evidence: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for name in methods:
        end = f"/{name}" if len(methods) > 1 else ""
        keys = [layer.key + end for layer in order if layer.key + end in explanation.evidence]
        codes = [explanation.map_status[key] for key in keys]
        key = FUSED + end
        evidence[key] = fuse_maps([explanation.evidence[key] for key in keys], codes, fuse)
        # Where no layer can be read, the deepest one tells why.
        unread = torch.stack(codes).amin(0) > 0
        found[key] = torch.where(unread, codes[-1], find_status(evidence[key]))
    place = Layer(FUSED, reason=f"{fuse} of {', '.join(layer.key for layer in order)}")
    return replace(
        explanation,
        evidence={**evidence, **explanation.evidence},
        map_status={**found, **explanation.map_status},
        layers={**dict.fromkeys(evidence, place), **explanation.layers},
    )


def average_mirrored(straight: Explanation, mirrored: Explanation) -> Explanation:
    """The mean of the evidence and that of the mirrored images, mirrored back."""
    evidence = {key: (tensor + mirrored.evidence[key].flip(-1)) / 2 for key, tensor in straight.evidence.items()}
    dead, found = FLAWS.index("no gradient"), {}
    for key, tensor in evidence.items():
        both_dead = (straight.map_status[key] == dead) & (mirrored.map_status[key] == dead)
        stays = both_dead | (straight.map_status[key] == UNASKED)
        found[key] = torch.where(stays, straight.map_status[key], find_status(tensor))
    return replace(straight, evidence=evidence, map_status=found)
