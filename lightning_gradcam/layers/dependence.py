"""Dependence on the images, found by changing them: for what autograd's graph does not connect to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.hooks import named_layers, register_hooks
from lightning_gradcam.capture.layer import IMAGES, LayerRecord
from lightning_gradcam.capture.outputs import list_float_tensors
from lightning_gradcam.layers.record_graph import find_dependent
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward

TOLERANCE = 1e-5
"""Largest difference between two passes over the same images, relative to an output's largest number."""


def connect_changed(
    records: Sequence[LayerRecord],
    model: nn.Module,
    probe: Probe,
    forward: Forward,
    isolate: Callable[[], AbstractContextManager[None]],
) -> tuple[LayerRecord, ...]:
    """Connect outputs to the images that autograd's graph does not connect, if a change of the images changes them.

    These are outputs after a no_grad block, a rounding or a step outside of PyTorch. Others are computed from other
    inputs or from parameters alone. Two passes are made, only if there is such an output with positions that the
    score's gradient reaches.

    Args:
        records: The trace.
        model: The model.
        probe: The traced images.
        forward: Calls the model.
        isolate: Isolates the model; the passes start from the same state.

    Returns:
        The records; those of changed outputs read the images.
    """
    dependent = find_dependent(records)
    doubtful = [r for i, r in enumerate(records) if i not in dependent and r.cells > 1 and r.reaches]
    if not doubtful:
        return tuple(records)
    names = {r.name for r in doubtful}
    with isolate():
        originals = _record_outputs(names, model, probe, forward)
    with isolate():
        changes = _record_outputs(names, model, replace(probe, images=add_noise(probe.images)), forward)
    changed = {r.key for r in doubtful if _has_changed(originals[r.name], changes[r.name], r.call)}
    return tuple(replace(r, reads=(r.reads or frozenset()) | {IMAGES}) if r.key in changed else r for r in records)


def add_noise(images: Tensor) -> Tensor:
    """Add as much noise to images as they vary themselves, the same each time."""
    generator = torch.Generator().manual_seed(0)
    values = images if images.is_floating_point() else images.float()  # a model may cast its images itself
    noise = torch.randn(images.shape, generator=generator).to(values)
    spread = values.std().nan_to_num()
    noisy: Tensor = values + noise * torch.where(spread > 0, spread, 1.0).to(values)
    return noisy.to(images.dtype)


def _record_outputs(
    names: Collection[str], model: nn.Module, probe: Probe, forward: Forward
) -> dict[str, list[Tensor]]:
    """Run the model and return the first tensor of each call of these modules."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    modules = named_layers(model)

    def create_hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = next(list_float_tensors(output), None)
            outputs[name].append(torch.empty(0) if tensor is None else tensor.detach().clone())

        return record

    with register_hooks([(modules[name].register_forward_hook, create_hook(name)) for name in names]):
        forward(model, probe)
    return outputs


def _has_changed(originals: Sequence[Tensor], changes: Sequence[Tensor], call: int) -> bool:
    """Return whether the output of a call differs, or the passes took different paths."""
    if len(originals) != len(changes) or originals[call].shape != changes[call].shape:
        return True
    difference = (originals[call] - changes[call]).abs().amax()
    return not bool(difference <= TOLERANCE * originals[call].abs().amax())
