"""Passes from a layer on: what ran before stands in for itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.hooks import is_traceable, named_layers, register_hooks
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.outputs import get_version, list_float_tensors, map_tensors, replace_tensor
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.probe.probe import Probe


@dataclass
class ModuleCall:
    """What one call of a module returned."""

    module: nn.Module
    live: Any  # the output, as it goes on
    kept: Any  # a copy
    written: int  # how often modules that ended since have written into it

    @staticmethod
    def of(module: nn.Module, output: Any) -> ModuleCall:
        """As it returns."""
        return ModuleCall(module, output, copy_tensors(output), -sum_versions(output))

    @property
    def changes(self) -> bool:
        """Whether code outside of modules that ended has written into it: then each pass needs a copy of its own."""
        return sum_versions(self.live) + self.written != 0


@dataclass
class CallRecorder:
    """Hooks that note, of the outermost modules that end before a layer returns, what they return."""

    layer: nn.Module
    call: int
    calls: int = 0
    frames: list[list[ModuleCall]] = field(default_factory=lambda: [[]])
    before: list[list[tuple[ModuleCall, int]]] = field(default_factory=list)
    found: list[ModuleCall] = field(default_factory=list)

    def enter(self, _module: nn.Module, _args: Any) -> None:
        """Before a module runs."""
        self.before.append([(each, sum_versions(each.live)) for frame in self.frames for each in frame])
        self.frames.append([])

    def leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        """After it has run."""
        self.frames.pop()  # what ran inside of it need not run again
        for each, count in self.before.pop():
            if sum_versions(each.live) != count:  # in place: what this module changes does not change when it stands in
                each.kept, each.written = copy_tensors(each.live), each.written + count - sum_versions(each.live)
        returned = ModuleCall.of(module, output)
        self.frames[-1].append(returned)
        if module is self.layer:
            if self.call in (-1, self.calls):
                self.found = [replace(each) for frame in self.frames for each in frame]
            self.calls += 1


def list_tensors(output: Any) -> list[Tensor]:
    """All tensors in what a module returned."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(output, note)
    return found


def sum_versions(output: Any) -> int:
    """How often they were changed in place, altogether."""
    return sum(get_version(tensor) for tensor in list_tensors(output))


def copy_tensors(output: Any) -> Any:
    """The same with copies of them."""
    return map_tensors(output, lambda tensor: tensor.detach().clone())


SAME = 1e-4
"""A restarted pass in which nothing was changed may differ by this part of the output's largest number."""


@dataclass(frozen=True)
class _StandIn:
    """What a module returns again, for as many rows as wanted."""

    module: nn.Module
    output: Any
    rows: tuple[int | None, ...]  # the dimension of each of its tensors that the images are
    changes: bool

    def __call__(self, count: int) -> Any:
        dims = iter(self.rows)

        def expanded(tensor: Tensor) -> Tensor:
            dim = next(dims)
            if dim is not None:
                sizes = [-1] * tensor.ndim
                sizes[dim] = count
                tensor = tensor.expand(sizes)
            return tensor.clone(memory_format=torch.contiguous_format) if self.changes else tensor

        return map_tensors(self.output, expanded)


class Restart:
    """One image's passes from a layer on, as `passes.ForwardFromLayer`.

    The first pass notes what the outermost modules return that end before the layer does. In the next ones they stand
    in with that, and only what lies between and behind them runs. Where that gives another output, or none (a model
    that keeps something in its attributes, or goes another way), the whole model runs each time.

    Args:
        model: Isolated, see `isolation.isolated`.
        layer: Where it starts.
        run: A forward pass of the model.
        probe: One image.
    """

    def __init__(self, model: nn.Module, layer: Layer, run: Callable[[Probe], Any], probe: Probe) -> None:
        self.probe, self._run, self._at = probe, run, layer
        self._modules = {m: name for name, m in named_layers(model).items() if is_traceable(name, m)}
        self._layer = named_layers(model)[layer.name]
        self._call = layer.call
        self.stand_ins = self._checked()

    @property
    def restarts(self) -> bool:
        """Whether passes begin at the layer; else the whole model runs."""
        return bool(self.stand_ins)

    def __call__(self, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        """The model's output for so many rows of the image, with the layer's output changed."""
        if self.restarts:
            try:
                return self._from_layer(self.stand_ins, count, change)
            except ForwardError:
                self.stand_ins = []
        return self._whole(count, change)

    def _checked(self) -> list[_StandIn]:
        """What stands in; nothing where a restarted pass does not return what the whole one does."""
        try:
            output, two = self._noted(2)
            _, three = self._noted(3)  # shapes of two and three rows tell which dimension they are
            found = _stand_ins(two, three)
            again = self._from_layer(found, 2, lambda tensor: tensor) if found else None
        except ForwardError:
            return []
        return found if found and _same(list(list_float_tensors(output)), list(list_float_tensors(again))) else []

    def _noted(self, count: int) -> tuple[Any, list[ModuleCall]]:
        notes = CallRecorder(self._layer, self._call)
        entering = [(module.register_forward_pre_hook, notes.enter) for module in self._modules]
        leaving = [(module.register_forward_hook, notes.leave) for module in self._modules]
        with register_hooks([*entering, *leaving]):  # type: ignore[list-item]  # pre-hooks take no output
            output = self._run(self.probe[[0] * count])
        self._call = self._call if self._call != -1 else notes.calls - 1
        return output, notes.found

    def _from_layer(self, stand_ins: Sequence[_StandIn], count: int, change: Callable[[Tensor], Tensor]) -> Any:
        *before, layer = stand_ins

        def hand_on() -> Any:
            output = replace(layer, changes=True)(count)
            tensor = next(list_float_tensors(output))
            return replace_tensor(output, tensor, change(tensor))

        queue = deque([*((each.module, lambda each=each: each(count)) for each in before), (layer.module, hand_on)])
        with _standing_in(queue):
            return self._run(self.probe[[0] * count])

    def _whole(self, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        if self._call == -1:
            self._noted(count)  # counts its calls
        calls = 0

        def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
            nonlocal calls
            calls += 1
            tensor = next(list_float_tensors(output), None)
            return None if tensor is None or calls - 1 != self._call else replace_tensor(output, tensor, change(tensor))

        with register_hooks([(self._layer.register_forward_hook, leave)]):
            return self._run(self.probe[[0] * count])


@contextmanager
def _standing_in(queue: deque[tuple[nn.Module, Callable[[], Any]]]) -> Iterator[None]:
    """Inside, modules return what the queue holds for them, in its order; once it is empty, they run."""
    modules = {module for module, _ in queue}

    def instead(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if not queue:
                return forward(*args, **kwargs)
            expected, returned = queue.popleft()
            if expected is not module:
                raise RuntimeError("The model goes another way than in the pass before.")
            return returned()

        return stand_in

    own = {module: vars(module).get("forward") for module in modules}
    try:
        for module in modules:
            vars(module)["forward"] = instead(module, module.forward)
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _stand_ins(two: Sequence[ModuleCall], three: Sequence[ModuleCall]) -> list[_StandIn]:
    """From passes over two and over three rows; none where they went different ways, or rows are no dimension."""
    if [each.module for each in two] != [each.module for each in three]:
        return []
    found = []
    for small, large in zip(two, three, strict=True):
        pairs = list(zip(list_tensors(small.kept), list_tensors(large.kept), strict=False))
        dims = [_rows_of(a.shape, b.shape) for a, b in pairs]
        if any(dim == -1 for dim in dims):
            return []
        found.append(_StandIn(small.module, _first(small.kept, dims), tuple(dims), small.changes))
    return found


def _first(output: Any, dims: Sequence[int | None]) -> Any:
    """The first row of all tensors in it."""
    following = iter(dims)

    def first(tensor: Tensor) -> Tensor:
        dim = next(following)
        return tensor if dim is None else tensor.narrow(dim, 0, 1).clone()

    return map_tensors(output, first)


def _rows_of(two: Sequence[int], three: Sequence[int]) -> int | None:
    """The dimension that is 2 in one shape and 3 in the other; None where both are equal, -1 where it is not so.

    >>> _rows_of((4, 2, 8), (4, 3, 8)), _rows_of((1, 8), (1, 8)), _rows_of((32, 8), (48, 8))
    (1, None, -1)
    """
    if len(two) != len(three):
        return -1
    differing = [i for i, sizes in enumerate(zip(two, three, strict=True)) if sizes[0] != sizes[1]]
    if not differing:
        return None
    return differing[0] if len(differing) == 1 and (two[differing[0]], three[differing[0]]) == (2, 3) else -1


def _same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
        return False
    pairs = zip(found, expected, strict=True)
    return all(bool((a - b).abs().amax() <= SAME * b.abs().amax()) for a, b in pairs if b.numel())
