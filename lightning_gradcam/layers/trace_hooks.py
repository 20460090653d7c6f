"""What the modules of a traced pass return, and which of it reaches the score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.hooks import is_traceable, named_layers, register_hooks
from lightning_gradcam.capture.layer import Grid, LayerRecord, ToGrid, is_vanishing
from lightning_gradcam.capture.outputs import (
    get_version,
    list_float_tensors,
    replace_inference_arguments,
    replace_tensor,
    with_grad,
)
from lightning_gradcam.layers.axis_tracking import AxisTracker, TensorOrigin
from lightning_gradcam.layers.spatial_grid import GridInference
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward


@dataclass
class _Made:
    """A tensor that a module made during a trace."""

    value: Tensor  # what the gradient is asked for
    handed: Tensor  # the clone that went on; an in-place operation changes it, and so its version
    version: int
    returned_by: list[tuple[nn.Module, int]]  # with which call of it; the innermost module first
    origin: TensorOrigin


@dataclass
class _Tape:
    """Hooks that note what the modules of a pass over so many rows make."""

    rows: int
    made: list[_Made] = field(default_factory=list)
    calls: Counter[nn.Module] = field(default_factory=Counter)
    running: list[tuple[int, list[tuple[Tensor, int]]]] = field(default_factory=list)

    def enter(self, module: nn.Module, args: Any) -> Any:
        """Before a module runs."""
        args = replace_inference_arguments(module, args)
        self.running.append((len(self.made), [(arg, get_version(arg)) for arg in args if isinstance(arg, Tensor)]))
        return args

    def leave(self, module: nn.Module, _args: Any, output: Any) -> Any:
        """After it has run."""
        first_inside, given = self.running.pop()
        call = self.calls[module]
        self.calls[module] += 1
        tensor, others = next(found := list_float_tensors(output), None), any(True for _ in found)
        if tensor is None or tensor.ndim < 2 or self.rows not in tensor.shape[: 2 if tensor.ndim == 3 else 1]:
            return None
        if any(arg is tensor and came == get_version(tensor) for arg, came in given):
            return None  # handed through, as dropout does in evaluation
        for record in self.made[first_inside:]:
            if record.handed is tensor and record.version == get_version(tensor):
                if not others:  # else the score may be made of those, and pass by the tensor on its way out
                    record.returned_by.append((module, call))
                return None
        value, handed = with_grad(tensor)  # also inside a no_grad block of the model's own
        origin = TensorOrigin(module, tensor, handed, [arg for arg, _ in given], first_inside)
        self.made.append(_Made(value, handed, handed._version, [(module, call)], origin))
        return replace_tensor(output, tensor, handed)


def run_traced(
    model: nn.Module, probe: Probe, forward: Forward, score: Callable[[Any], Tensor]
) -> tuple[tuple[LayerRecord, ...], Any]:
    """Run the model once with grad and list what its modules returned, in order of execution.

    Args:
        model: As it is to be explained, see `isolation.isolated`.
        probe: A few images.
        forward: How the model is called.
        score: Turns the model's output into scores ``(n,)`` or ``(n, k)``.

    Returns:
        One `LayerRecord` per distinct tensor with one row per image, and the model's output.
    """
    tape = _Tape(len(probe))
    names = {module: name for name, module in named_layers(model).items() if is_traceable(name, module)}
    entering = [(module.register_forward_pre_hook, tape.enter) for module in names]
    leaving = [(module.register_forward_hook, tape.leave) for module in names]
    with torch.enable_grad():
        with register_hooks([*entering, *leaving]):  # type: ignore[list-item]  # pre-hooks take no output
            output = forward(model, probe)
        scores = score(output)
        gradients: Sequence[Tensor | None] = [None] * len(tape.made)
        if tape.made and scores.requires_grad:
            gradients = torch.autograd.grad(scores.sum(), [r.value for r in tape.made], allow_unused=True)
    layouts, places = GridInference(probe.size, len(probe)), AxisTracker(probe.images)
    read = [layouts.follow(record.origin, places) for record in tape.made]
    shapes = [_shape(r, names, tape.calls, *at, g) for r, at, g in zip(tape.made, read, gradients, strict=True)]
    if not is_vanishing(shapes):
        shapes = [replace(s, reaches=s.touched > 0) if s.tokens else s for s in shapes]
    return tuple(shapes), output


def _shape(
    record: _Made,
    names: Mapping[nn.Module, str],
    calls: Mapping[nn.Module, int],
    grid: Grid | None,
    to_grid: ToGrid,
    gradient: Tensor | None,
) -> LayerRecord:
    (maker, _), (outermost, call) = record.returned_by[0], record.returned_by[-1]
    return LayerRecord(
        name=names[outermost],
        kind=type(maker).__name__,
        shape=tuple(record.value.shape),
        grid=grid,
        call=-1 if call == calls[outermost] - 1 else call,
        reaches=gradient is not None,
        touched=0.0 if gradient is None else _touched(to_grid(gradient)),
        to_grid=to_grid,
        inner=tuple(names[module] for module, _ in record.returned_by[:-1]),
    )


def _touched(gradient: Tensor) -> float:
    """The share of places in ``(n, C, *s)`` with a gradient in some image and channel."""
    return (
        float((gradient != 0).flatten(2).any(1).any(0).float().mean()) if gradient.ndim > 2 else float(gradient.any())
    )
