"""Hooks that record the outputs of modules in a traced pass, and the gradient of the score at each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_gradcam.capture.hooks import is_traceable, named_layers, register_hooks
from lightning_gradcam.capture.layer import LayerRecord, is_vanishing
from lightning_gradcam.capture.layouts import Grid, channels_first
from lightning_gradcam.capture.outputs import (
    get_version,
    list_float_tensors,
    replace_inference_arguments,
    replace_tensor,
    with_grad,
)
from lightning_gradcam.capture.random_state import reseed
from lightning_gradcam.layers.axis_tracking import AxisTracker
from lightning_gradcam.layers.center_tracing import CenterTracer
from lightning_gradcam.layers.flat_maps import reject_flat_maps
from lightning_gradcam.layers.graded_outputs import grade_readings
from lightning_gradcam.layers.layout_check import CheckedReading, check_readings
from lightning_gradcam.layers.place_tracing import PlaceTracer
from lightning_gradcam.layers.spatial_grid import GridInference, GridReading
from lightning_gradcam.layers.tensor_history import TensorOrigin
from lightning_gradcam.layers.trace_graph import TraceGraph
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward


@dataclass
class _TracedOutput:
    """A tensor that a module computed during a trace.

    Args:
        value: The tensor at which the gradient is computed.
        passed_on: The clone that the next module receives; an in-place operation changes it, and so its version.
        version: Version of the clone when it was recorded.
        returned_by: Modules that returned it, the innermost first, each with the number of its call.
        origin: Maker and inputs.
        made_by: The node of autograd's graph that computed it; None without grad.
        goes_on_at: The node of the clone.
        called_in: The module that called the outermost of ``returned_by``; None for the model.
    """

    value: Tensor
    passed_on: Tensor
    version: int
    returned_by: list[tuple[nn.Module, int]]
    origin: TensorOrigin
    made_by: Node | None
    goes_on_at: Node | None
    called_in: nn.Module | None = None


@dataclass
class _Tracer:
    """Hooks that record the outputs of modules in a pass over ``batch_size`` images of so many slices or frames."""

    batch_size: int
    slices: int = 1
    outputs: list[_TracedOutput] = field(default_factory=list)
    calls: Counter[nn.Module] = field(default_factory=Counter)
    open_calls: list[tuple[int, list[tuple[Tensor, int]]]] = field(default_factory=list)
    open_modules: list[nn.Module] = field(default_factory=list)

    def enter_module(self, module: nn.Module, args: Any) -> Any:
        """Record a module's inputs before it runs (a forward pre-hook)."""
        args = replace_inference_arguments(module, args)
        inputs = [(tensor, get_version(tensor)) for tensor in list_float_tensors(args)]
        self.open_calls.append((len(self.outputs), inputs))
        self.open_modules.append(module)
        return args

    def leave_module(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Record a module's output after it has run, and replace it by a clone with grad (a forward hook)."""
        first_inner, inputs = self.open_calls.pop()
        self.open_modules.pop()
        called_in = self.open_modules[-1] if self.open_modules else None
        call = self.calls[module]
        self.calls[module] += 1
        tensors = list_float_tensors(output)
        tensor, has_more_tensors = next(tensors, None), any(True for _ in tensors)
        if tensor is None or not self._has_batch_axis(tensor):
            return None
        if any(arg is tensor and version == get_version(tensor) for arg, version in inputs):
            return None  # the module returned its input, as dropout does in evaluation
        for record in self.outputs[first_inner:]:
            if record.passed_on is tensor and record.version == get_version(tensor):
                # With more tensors in the output, the score may be computed from those instead.
                if not has_more_tensors:
                    record.returned_by.append((module, call))
                    record.called_in = called_in
                return None
        value, passed_on = with_grad(tensor)  # also inside a no_grad block of the model
        origin = TensorOrigin(module, tensor, passed_on, [arg for arg in args if isinstance(arg, Tensor)], first_inner)
        returned_by, nodes = [(module, call)], (value.grad_fn, passed_on.grad_fn)
        self.outputs.append(_TracedOutput(value, passed_on, passed_on._version, returned_by, origin, *nodes, called_in))
        return replace_tensor(output, tensor, passed_on)

    def _has_batch_axis(self, tensor: Tensor) -> bool:
        """Return whether images come first, or their slices, or images second in a sequence ``(L, n, C)``."""
        batch_axes = 2 if tensor.ndim == 3 else 1
        has_images = self.batch_size in tensor.shape[:batch_axes]
        return tensor.ndim >= 2 and (has_images or tensor.shape[0] == self.batch_size * self.slices)


def run_traced(
    model: nn.Module, probe: Probe, forward: Forward, score: Callable[[Any], Tensor], needs_grad: bool = True
) -> tuple[tuple[LayerRecord, ...], Any]:
    """Run the model once with grad and list what its modules returned, in order of execution.

    Args:
        model: The model in the state in which it is explained, see `isolation.isolated`.
        probe: A few images.
        forward: Calls the model.
        score: Turns the model's output into scores ``(n,)`` or ``(n, k)``.
        needs_grad: Whether the images require a gradient, which shows what is computed from them. A model that turns
            them into arrays does not accept this.

    Returns:
        One `LayerRecord` per distinct tensor with a batch dimension, and the model's output.
    """
    tracer = _Tracer(len(probe), probe.size[0] if len(probe.size) == 3 else 1)
    names = {module: name for name, module in named_layers(model).items() if is_traceable(name, module)}
    pre_hooks = [(module.register_forward_pre_hook, tracer.enter_module) for module in names]
    hooks = [(module.register_forward_hook, tracer.leave_module) for module in names]
    reseed(probe.images.device)  # the check of layouts repeats the pass
    with torch.enable_grad():
        # Not a leaf, so that the model can change it in place.
        can_need_grad = needs_grad and probe.images.is_floating_point()
        images = probe.images.detach().requires_grad_(can_need_grad).clone()
        images_node = images.grad_fn
        with register_hooks([*pre_hooks, *hooks]):  # type: ignore[list-item]  # pre-hooks take no output
            output = forward(model, replace(probe, images=images))
        scores = score(output)
        links = _link_outputs(images_node, tracer.outputs, scores)
        center_tracer = _trace_centers(images, probe.size, tracer.outputs)  # before autograd frees the graph
        layouts = _infer_layouts(tracer.outputs, images, probe.size, center_tracer)
        outputs_of_makers = [(traced.origin.maker, traced.value) for traced in tracer.outputs]
        layouts = reject_flat_maps(outputs_of_makers, layouts, [reads for reads, _ in links])
        proven = _find_proven(images, probe.size, tracer.outputs, layouts)
        gradients: Sequence[Tensor | None] = [None] * len(tracer.outputs)
        if tracer.outputs and scores.requires_grad:
            gradients = torch.autograd.grad(scores.sum(), [o.value for o in tracer.outputs], allow_unused=True)
    gradable = [
        (*o.returned_by[0], o.value, gradient is not None, is_proven)
        for o, gradient, is_proven in zip(tracer.outputs, gradients, proven, strict=True)
    ]
    readings = check_readings(model, probe, forward, grade_readings(gradable, layouts, probe.size))
    returned = {id(tensor) for tensor in list_float_tensors(output)}
    centers = [
        center_tracer.read(o.value, checked.reading) for o, checked in zip(tracer.outputs, readings, strict=True)
    ]
    records = [
        replace(
            _to_record(traced, names, tracer.calls, reading, gradient),
            reads=reads,
            is_scored=is_scored,
            is_output=id(traced.passed_on) in returned,
            centers=of_cells,
        )
        for traced, reading, gradient, (reads, is_scored), of_cells in zip(
            tracer.outputs, readings, gradients, links, centers, strict=True
        )
    ]
    if not is_vanishing(records):
        records = [replace(r, reaches=r.touched > 0) if r.tokens else r for r in records]
    return tuple(records), output


def _link_outputs(
    images_node: Node | None, outputs: Sequence[_TracedOutput], scores: Tensor
) -> list[tuple[frozenset[int], bool]]:
    """Find what each output was computed from, and whether the score was computed from it directly."""
    graph = TraceGraph(images_node)
    reads = []
    for index, traced in enumerate(outputs):
        reads.append(graph.find_sources(traced.made_by))
        graph.add(traced.goes_on_at, index)
    scored = graph.find_sources(scores.grad_fn)
    return [(sources, index in scored) for index, sources in enumerate(reads)]


def _trace_centers(images: Tensor, size: Grid, outputs: Sequence[_TracedOutput]) -> CenterTracer:
    """Trace where the cells of all outputs lie in the image."""
    leaves = {id(traced.value): traced.origin for traced in outputs if traced.made_by is None}
    center_tracer = CenterTracer(images, size, leaves)
    for traced in outputs:
        center_tracer.trace(traced.value)
    return center_tracer


def _infer_layouts(
    outputs: Sequence[_TracedOutput], images: Tensor, size: Grid, center_tracer: CenterTracer
) -> list[GridReading]:
    """Infer the grid and the layout of all outputs, in order of execution."""
    inference, tracker = GridInference(size, len(images)), AxisTracker(images)
    return [center_tracer.turn(o.value, inference.read_output(o.origin, tracker)) for o in outputs]


def _find_proven(
    images: Tensor, size: Grid, outputs: Sequence[_TracedOutput], readings: Sequence[GridReading]
) -> list[bool]:
    """Find the outputs whose layouts the graph shows, if there are other layouts than channels first."""
    if all(reading.to_grid is channels_first for reading in readings):
        return [False] * len(outputs)
    places = PlaceTracer(images, size)
    return [places.proves(o.value, reading) for o, reading in zip(outputs, readings, strict=True)]


def _to_record(
    traced: _TracedOutput,
    names: Mapping[nn.Module, str],
    calls: Mapping[nn.Module, int],
    checked: CheckedReading,
    gradient: Tensor | None,
) -> LayerRecord:
    reading = checked.reading
    (maker, _), (outermost, call) = traced.returned_by[0], traced.returned_by[-1]
    return LayerRecord(
        name=names[outermost],
        kind=type(maker).__name__,
        shape=tuple(traced.value.shape),
        grid=reading.grid,
        call=-1 if call == calls[outermost] - 1 else call,
        reaches=gradient is not None,
        touched=0.0 if gradient is None else _measure_reach(reading.to_grid(gradient)),
        to_grid=reading.to_grid,
        inner=tuple(names[module] for module, _ in traced.returned_by[:-1]),
        misplaced=checked.misplaced,
        inner_calls=tuple(call for _, call in traced.returned_by[:-1]),
        num_calls={names[module]: calls[module] for module, _ in traced.returned_by if calls[module] > 1},
        called_in="" if traced.called_in is None else names[traced.called_in],
    )


def _measure_reach(gradient: Tensor) -> float:
    """Return the fraction of positions in ``(n, C, *s)`` with a gradient in some image and channel."""
    if gradient.ndim <= 2:
        return float(gradient.any())
    return float((gradient != 0).flatten(2).any(1).any(0).float().mean())
