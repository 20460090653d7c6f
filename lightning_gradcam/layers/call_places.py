"""Where in the image each of several calls reads: calls are summed only if their cells lie at the same places."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam.capture.hooks import find_layer, register_hooks
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.outputs import list_float_tensors
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward

CHECKED_CALLS = 4
"""Number of calls that are compared: the first ones and the last."""

_RESOLUTION = 16  # cells per dimension in which the influence of pixels is compared


def check_places(
    layers: Sequence[Layer],
    model: nn.Module,
    probe: Probe,
    forward: Forward,
    isolate: Callable[[], AbstractContextManager[None]],
) -> list[Layer]:
    """Replace sums over calls that read different parts of the image, such as windows or mirrored copies.

    Their cells lie at different places, and only one call is explained, whose corners depend most on the corners of the
    image; the reason says so. Calls are summed if each corner of a map is influenced by the same pixels as the same
    corner in the last call, and more so than by those of any other corner; or if autograd's graph does not connect them
    to the images.

    Args:
        layers: The layers that were chosen.
        model: The model.
        probe: A few images.
        forward: Calls the model.
        isolate: Isolates the model.
    """
    return [_check_layer(layer, model, probe, forward, isolate) if len(layer.calls) > 1 else layer for layer in layers]


def _check_layer(
    layer: Layer,
    model: nn.Module,
    probe: Probe,
    forward: Forward,
    isolate: Callable[[], AbstractContextManager[None]],
) -> Layer:
    """Return a layer with its sum over calls, or with one of them."""
    outputs: list[Tensor | None] = []

    def record(_module: nn.Module, _args: Any, output: Any) -> None:
        outputs.append(next(list_float_tensors(output), None))

    module = find_layer(layer.name, model)
    if module is None:
        return layer
    with isolate(), torch.enable_grad():
        images = probe.images.detach().requires_grad_()
        try:
            with register_hooks([(module.register_forward_hook, record)]):
                forward(model, replace(probe, images=images.clone()))
        except ForwardError:
            return layer  # the model turns the images into arrays, which cuts the graph
        calls = list(dict.fromkeys([*layer.calls[: CHECKED_CALLS - 1], layer.calls[-1]]))
        measured = {call: _measure_corners(outputs[call], layer, images) for call in calls}
    influences = {call: influence for call, influence in measured.items() if influence is not None}
    if len(influences) < 2 or all(_match_corners(i, influences[max(influences)]) for i in influences.values()):
        return layer
    best = min(influences, key=lambda call: float(_measure_distance(influences[call], len(probe.size))))
    reason = layer.reason.partition("; the sum over")[0].partition("; of its")[0]
    note = f"call {best}, counted from 0, since the others read other parts of the image, or a changed image"
    return replace(layer, call=best, calls=(), reason=f"{reason}; {note}")


def _measure_corners(output: Tensor | None, layer: Layer, images: Tensor) -> Tensor | None:
    """Return, per corner of a map, the influence of each part of the image; None if the graph does not reach it."""
    if output is None or not output.requires_grad:
        return None
    grid = layer.to_grid(output)
    influences = []
    for ends in itertools.product((slice(0, 1), slice(-1, None)), repeat=grid.ndim - 2):
        corner = grid[(slice(None), slice(None), *ends)].sum()
        gradients = list[Tensor | None](torch.autograd.grad(corner, images, retain_graph=True, allow_unused=True))
        if gradients[0] is None:
            return None
        influences.append(gradients[0].abs().sum((0, 1)))
    pool: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(images.shape) - 3]
    return F.normalize(pool(torch.stack(influences)[:, None], _RESOLUTION).flatten(1), dim=1)


def _measure_distance(influence: Tensor, dimensions: int) -> Tensor:
    """Return the mean distance between each corner of the image and the center of what influences it in a map."""
    axis = torch.linspace(0, 1, _RESOLUTION).to(influence)
    positions = torch.cartesian_prod(*[axis] * dimensions).reshape(-1, dimensions)
    centers = influence @ positions / influence.sum(1, keepdim=True).clamp_min(1e-12)
    corners = torch.cartesian_prod(*[axis[[0, -1]]] * dimensions).reshape(-1, dimensions)
    distance: Tensor = (centers - corners).norm(dim=1)
    return distance.mean()


def _match_corners(influence: Tensor, expected: Tensor) -> bool:
    """Return whether each corner's influence is most similar to that of the same corner.

    >>> _match_corners(torch.eye(4), torch.eye(4)), _match_corners(torch.eye(4).flip(0), torch.eye(4))
    (True, False)
    """
    similarity = influence @ expected.T
    same = similarity.diagonal()
    return bool((same > 0.5).all() and (same >= similarity.amax(1) - 1e-3).all())
