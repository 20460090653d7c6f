"""Fusion of several maps into one: of several layers, or of an image and its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import MapStatus, find_status
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import resample, resize

Fuse: TypeAlias = Literal["mean", "max", "weighted"]
FUSED = "fused"
"""Key of the map that is fused from several layers."""

_RULES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(1),
    "max": lambda maps: maps.amax(1),
    "weighted": lambda maps: torch.einsum("nl...,l->n...", maps, _get_rising_weights(maps)),
}


def _get_rising_weights(maps: Tensor) -> Tensor:
    """Return weights proportional to 1, 2, ... that sum to 1, one per layer of ``(n, layers, *s)``."""
    weights = torch.arange(1, maps.shape[1] + 1, device=maps.device, dtype=maps.dtype)
    return weights / weights.sum()


def check_fuse(fuse: str | None, layers: Sequence[Layer] | None = None, uses_layers: bool = True) -> None:
    """Validate the ``fuse`` argument.

    Args:
        fuse: As the user passed it.
        layers: The layers to fuse, once they are known.
        uses_layers: Whether all methods compute their evidence at layers.

    Raises:
        ValueError: The rule does not exist, there is only one layer, or a method's evidence is not at a layer.
    """
    if fuse is not None and fuse not in _RULES:
        raise ValueError(f"Expected `fuse` to be None, {', '.join(map(repr, get_args(Fuse)))}, but got {fuse!r}.")
    if fuse is not None and not uses_layers:
        raise ValueError(
            f"Expected only methods that explain layers with `fuse={fuse!r}`, but got one that does not. Leave out "
            "`fuse` or that method."
        )
    if fuse is not None and layers is not None and len(layers) < 2:
        raise ValueError(
            f"Expected several layers for `fuse={fuse!r}`, but `layers` selected only {layers[0].key!r}. Pass "
            "`layers='stages'` (the last layer of every resolution), or a list of names."
        )


def check_flips(flips: object) -> None:
    """Raise a TypeError unless ``flips`` is a bool."""
    if not isinstance(flips, bool):
        raise TypeError(f"Expected `flips` to be True or False, but got {flips!r}.")


def sort_by_execution(layers: Sequence[Layer], records: Sequence[LayerRecord]) -> list[Layer]:
    """Sort layers by their order of execution in the trace; layers that are not in it come last."""
    positions = {name: i for i, record in enumerate(records) for name in (record.name, *record.inner)}
    positions |= {Layer(record.name, record.call).key: i for i, record in enumerate(records)}
    return sorted(layers, key=lambda layer: positions.get(layer.key, positions.get(layer.name, len(records))))


def fuse_maps(
    evidence: Sequence[Tensor],
    codes: Sequence[Tensor],
    fuse: Fuse,
    centers: Sequence[CellCenters | None] | None = None,
) -> Tensor:
    r"""Fuse the maps of several layers into one, on the finest of their grids.

    Each layer's :math:`\operatorname{relu}(E_l) / \max_{hw} E_l` is resized. The result is their mean, their maximum,
    or their mean with weights 1, 2, ... from the earliest layer to the deepest.

    Args:
        evidence: ``(N, *s)`` for each layer, in order of execution.
        codes: ``(N,)`` their map_status; a degenerate map counts as zero.
        fuse: ``"mean"``, ``"max"`` or ``"weighted"``.
        centers: The centers of the cells of each layer; None if they cover the image evenly.

    Returns:
        ``(N, *s)`` in [0, 1].

    >>> early, deep = torch.tensor([[[4.0, 0.0]]]), torch.tensor([[[1.0, 2.0]]])
    >>> fuse_maps([early, deep], [torch.zeros(1), torch.zeros(1)], "weighted")
    tensor([[[0.6667, 0.6667]]])
    """
    finest = max(range(len(evidence)), key=lambda index: evidence[index][0].numel())
    grid, centers = tuple(evidence[finest].shape[1:]), centers or [None] * len(evidence)
    maps = []
    for tensor, code, of_tensor in zip(evidence, codes, centers, strict=True):
        per_image = (-1, *[1] * (tensor.ndim - 1))
        positive = torch.where((code == 0).reshape(per_image), tensor.relu(), 0)
        largest = positive.flatten(1).amax(1).reshape(per_image)
        scaled = positive / torch.where(largest == 0, 1, largest)
        if of_tensor == centers[finest]:
            maps.append(resize(scaled, grid))
        else:
            of_tensor, of_finest = (
                of_tensor or CellCenters.spread(tensor.shape[1:]),
                centers[finest] or CellCenters.spread(grid),
            )
            maps.append(resample(scaled, of_tensor.locate(of_finest, grid, tensor.device)))
    return _RULES[fuse](torch.stack(maps, 1))


def add_fused(explanation: Explanation, methods: Sequence[str], order: Sequence[Layer], fuse: Fuse) -> Explanation:
    """Insert the fused map of all layers before their maps, one per method.

    Args:
        explanation: An explanation of several layers.
        methods: The methods' names.
        order: The layers, in order of execution.
        fuse: See `fuse_maps`.
    """
    evidence: dict[str, Tensor] = {}
    map_status: dict[str, Tensor] = {}
    centers: dict[str, CellCenters] = {}
    for name in methods:
        suffix = f"/{name}" if len(methods) > 1 else ""
        keys = [layer.key + suffix for layer in order if layer.key + suffix in explanation.evidence]
        codes = [explanation.map_status[key] for key in keys]
        maps = [explanation.evidence[key] for key in keys]
        fused = fuse_maps(maps, codes, fuse, [explanation.centers.get(key) for key in keys])
        # If no layer can be read, the deepest one gives the reason.
        is_degenerate = torch.stack(codes).amin(0) > 0
        evidence[FUSED + suffix] = fused
        finest = next(key for key in keys if explanation.evidence[key].shape == fused.shape)
        if finest in explanation.centers:
            centers[FUSED + suffix] = explanation.centers[finest]
        map_status[FUSED + suffix] = torch.where(is_degenerate, codes[-1], find_status(fused))
    layer = Layer(FUSED, reason=f"{fuse} of {', '.join(layer.key for layer in order)}")
    return replace(
        explanation,
        evidence={**evidence, **explanation.evidence},
        map_status={**map_status, **explanation.map_status},
        layers={**dict.fromkeys(evidence, layer), **explanation.layers},
        centers={**centers, **explanation.centers},
    )


def average_mirrored(straight: Explanation, mirrored: Explanation) -> Explanation:
    """Average the evidence with the evidence of the mirrored images, mirrored back."""
    evidence = {key: (tensor + mirrored.evidence[key].flip(-1)) / 2 for key, tensor in straight.evidence.items()}
    map_status = {}
    for key, tensor in evidence.items():
        status, mirrored_status = straight.map_status[key], mirrored.map_status[key]
        has_no_gradient = (status == MapStatus.NO_GRADIENT) & (mirrored_status == MapStatus.NO_GRADIENT)
        is_kept = has_no_gradient | (status == MapStatus.NO_LABEL)
        map_status[key] = torch.where(is_kept, status, find_status(tensor))
    centers = {
        key: of_map.average_with_mirrored(-1, evidence[key].shape[-1]) for key, of_map in straight.centers.items()
    }
    return replace(straight, evidence=evidence, map_status=map_status, centers=centers)
