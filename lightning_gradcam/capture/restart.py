"""Forward passes that start at a layer: the modules before it replay their recorded outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.call_recorder import CallRecorder, ModuleCall, list_tensors
from lightning_gradcam.capture.hooks import is_traceable, named_layers, register_hooks
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.outputs import list_float_tensors, map_tensors, replace_tensor
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.probe.probe import Probe

TOLERANCE = 1e-4
"""How far a partial pass without a change may differ from the whole pass, relative to the output's largest number."""


@dataclass(frozen=True)
class _RecordedOutput:
    """A module's output for one image, which a replay expands to any number of rows.

    Args:
        module: The module.
        output: Its output, with one row.
        row_dims: For each tensor, the dimension of its rows; None if it has none.
        needs_copy: Whether later code changes the output in place.
    """

    module: nn.Module
    output: Any
    row_dims: tuple[int | None, ...]
    needs_copy: bool

    def expand(self, count: int) -> Any:
        """Return the output with ``count`` equal rows."""
        dims = iter(self.row_dims)

        def expand_tensor(tensor: Tensor) -> Tensor:
            dim = next(dims)
            if dim is not None:
                sizes = [-1] * tensor.ndim
                sizes[dim] = count
                tensor = tensor.expand(sizes)
            return tensor.clone(memory_format=torch.contiguous_format) if self.needs_copy else tensor

        return map_tensors(self.output, expand_tensor)


class Restart:
    """The forward passes of one image that start at a layer, a `passes.ForwardFromLayer`.

    The first pass records the outputs of the outermost modules that end before the layer does. In later passes, these
    modules return their recorded outputs, and only the code between and after them runs. If that changes the output or
    fails (because a model stores something in its attributes, or takes another execution path), the whole model runs
    each time.

    Args:
        model: Isolated, see `isolation.isolated`.
        layer: The layer to start at.
        run: A forward pass of the model.
        probe: One image.
    """

    def __init__(self, model: nn.Module, layer: Layer, run: Callable[[Probe], Any], probe: Probe) -> None:
        self.probe, self._run = probe, run
        modules = named_layers(model)
        self._traceable = [module for name, module in modules.items() if is_traceable(name, module)]
        self._layer = modules[layer.name]
        self._call = layer.call
        self._recorded = self._record_verified()

    @property
    def is_partial(self) -> bool:
        """Whether passes start at the layer, instead of running the whole model."""
        return bool(self._recorded)

    def __call__(self, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        """Return the model's output for ``count`` copies of the image, with the layer's output changed."""
        if self.is_partial:
            try:
                return self._run_from_layer(self._recorded, count, change)
            except ForwardError:
                self._recorded = []
        return self._run_whole_model(count, change)

    def _record_verified(self) -> list[_RecordedOutput]:
        """Record the outputs to replay; none if a partial pass does not return what the whole pass returns."""
        try:
            output, two_rows = self._record_calls(2)
            _, three_rows = self._record_calls(3)  # the shapes of two and three rows show which dimension they are
            recorded = _combine_calls(two_rows, three_rows)
            replayed = self._run_from_layer(recorded, 2, lambda tensor: tensor) if recorded else None
        except ForwardError:
            return []
        is_equal = _are_close(list(list_float_tensors(output)), list(list_float_tensors(replayed)))
        return recorded if is_equal else []

    def _record_calls(self, count: int) -> tuple[Any, list[ModuleCall]]:
        """Run the whole model on ``count`` copies of the image; return its output and the recorded calls."""
        recorder = CallRecorder(self._layer, self._call)
        pre_hooks = [(module.register_forward_pre_hook, recorder.enter) for module in self._traceable]
        hooks = [(module.register_forward_hook, recorder.leave) for module in self._traceable]
        with register_hooks([*pre_hooks, *hooks]):  # type: ignore[list-item]  # pre-hooks have no output argument
            output = self._run(self.probe[[0] * count])
        self._call = self._call if self._call != -1 else recorder.num_calls - 1
        return output, recorder.recorded

    def _run_from_layer(
        self, recorded: Sequence[_RecordedOutput], count: int, change: Callable[[Tensor], Tensor]
    ) -> Any:
        *earlier, layer = recorded

        def change_layer() -> Any:
            output = replace(layer, needs_copy=True).expand(count)
            tensor = next(list_float_tensors(output))
            return replace_tensor(output, tensor, change(tensor))

        replays: list[tuple[nn.Module, Callable[[], Any]]]
        replays = [(output.module, partial(output.expand, count)) for output in earlier]
        with _replay_outputs(deque([*replays, (layer.module, change_layer)])):
            return self._run(self.probe[[0] * count])

    def _run_whole_model(self, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        if self._call == -1:
            self._record_calls(count)  # counts the layer's calls
        num_calls = 0

        def change_output(_module: nn.Module, _args: Any, output: Any) -> Any:
            nonlocal num_calls
            num_calls += 1
            tensor = next(list_float_tensors(output), None)
            if tensor is None or num_calls - 1 != self._call:
                return None
            return replace_tensor(output, tensor, change(tensor))

        with register_hooks([(self._layer.register_forward_hook, change_output)]):
            return self._run(self.probe[[0] * count])


@contextmanager
def _replay_outputs(queue: deque[tuple[nn.Module, Callable[[], Any]]]) -> Iterator[None]:
    """Let modules return the outputs in the queue, in its order; once it is empty, modules run again."""
    modules = {module for module, _ in queue}

    def create_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def replay(*args: Any, **kwargs: Any) -> Any:
            if not queue:
                return forward(*args, **kwargs)
            expected, create_output = queue.popleft()
            if expected is not module:
                raise RuntimeError("The model's execution path differs from that of the recorded pass.")
            return create_output()

        return replay

    # A module whose forward is an attribute of its own gets it back; others find their class's again.
    forwards = {module: vars(module).get("forward") for module in modules}
    try:
        for module in modules:
            vars(module)["forward"] = create_forward(module, module.forward)
        yield
    finally:
        for module, forward in forwards.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _combine_calls(two_rows: Sequence[ModuleCall], three_rows: Sequence[ModuleCall]) -> list[_RecordedOutput]:
    """Combine the calls of passes over two and three rows; none if their paths differ or rows are not a dimension."""
    if [call.module for call in two_rows] != [call.module for call in three_rows]:
        return []
    recorded = []
    for small, large in zip(two_rows, three_rows, strict=True):
        pairs = list(zip(list_tensors(small.copy), list_tensors(large.copy), strict=False))
        dims = [_find_row_dim(a.shape, b.shape) for a, b in pairs]
        if any(dim == -1 for dim in dims):
            return []
        first_row = _select_first_row(small.copy, dims)
        recorded.append(_RecordedOutput(small.module, first_row, tuple(dims), small.is_overwritten))
    return recorded


def _select_first_row(output: Any, row_dims: Sequence[int | None]) -> Any:
    """Select the first row of all tensors in a module's output."""
    dims = iter(row_dims)

    def select(tensor: Tensor) -> Tensor:
        dim = next(dims)
        return tensor if dim is None else tensor.narrow(dim, 0, 1).clone()

    return map_tensors(output, select)


def _find_row_dim(two_rows: Sequence[int], three_rows: Sequence[int]) -> int | None:
    """Find the dimension that is 2 in one shape and 3 in the other; None if the shapes are equal, -1 if it is not one.

    >>> _find_row_dim((4, 2, 8), (4, 3, 8)), _find_row_dim((1, 8), (1, 8)), _find_row_dim((32, 8), (48, 8))
    (1, None, -1)
    """
    if len(two_rows) != len(three_rows):
        return -1
    differing = [dim for dim, sizes in enumerate(zip(two_rows, three_rows, strict=True)) if sizes[0] != sizes[1]]
    if not differing:
        return None
    [dim, *further] = differing
    return dim if not further and (two_rows[dim], three_rows[dim]) == (2, 3) else -1


def _are_close(tensors: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return whether tensors have the expected shapes and values, up to `TOLERANCE`."""
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected]:
        return False
    pairs = zip(tensors, expected, strict=True)
    return all(bool((a - b).abs().amax() <= TOLERANCE * b.abs().amax()) for a, b in pairs if b.numel())
