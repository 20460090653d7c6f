"""The processes of a run: what one decides all do, and where one fails all fail, so that none waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from lightning_gradcam.capture.forward import is_out_of_memory
from lightning_gradcam.errors import ForwardError, NotExplainableError
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.monitor.adversarial import AttackedExplanation
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward

Made = TypeVar("Made")
Rows = TypeVar("Rows", Explanation, AttackedExplanation)

_REPLICAS = ("SingleDevice", "DDP")
_SHARDS = ("FSDP", "ModelParallel")
_KINDS = (TypeError, ValueError, ForwardError, NotExplainableError)
_Told = tuple[type[Exception], str]


def _is(strategy: Any, names: tuple[str, ...]) -> bool:
    return any(c.__name__.startswith(names) for c in type(strategy).__mro__)


@dataclass(frozen=True)
class Ranks:
    """All processes of a run, seen from one of them.

    Args:
        strategy: Lightning's, whose collectives are used.
        index: Which process this is.
        count: How many there are.
    """

    strategy: Any = None
    index: int = 0
    count: int = 1

    @staticmethod
    def of(trainer: Any) -> Ranks:
        """The processes of that Trainer's run."""
        return Ranks(trainer.strategy, int(trainer.global_rank), int(trainer.world_size))

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that draws and writes."""
        return self.index == 0

    @property
    def sharded(self) -> bool:
        """Whether no process has the whole model, so that all have to run it together."""
        return _is(self.strategy, _SHARDS)

    @property
    def is_supported(self) -> bool:
        """Whether it is known how to look under this strategy."""
        known = self.sharded or self.count == 1 or _is(self.strategy, _REPLICAS)
        return known and not _is(self.strategy, ("DeepSpeed",))  # whose class is one of the DDP strategies

    @property
    def is_ready(self) -> bool:
        """Whether a look can be taken before the first step: FSDP sets itself up in a pass of the user's, not ours."""
        return getattr(getattr(self.strategy, "model", None), "_is_root", True) is not None

    def broadcast_from_rank_zero(self, make: Callable[[], Made]) -> Made:
        """What the first process makes, in every process; what it raises is raised in all of them."""
        if self.count == 1:
            return make()
        made, problem = _tried(make) if self.is_rank_zero else (None, None)
        answer: Made
        answer, told = self.strategy.broadcast((made, _tell(problem)))
        _raise(problem, told, 0)
        return answer

    def run_on_all_ranks(self, make: Callable[[], Made]) -> Made:
        """What this process makes; what any of them raises is raised in all of them.

        But where a sharded model's pass runs out of memory in one process, the run ends: the others wait inside of it.
        """
        if self.count == 1:
            return make()
        made, problem = _tried(make)
        if problem is not None and self.sharded and is_out_of_memory(problem):
            # The others wait inside the pass for parts that will not come: what is left is to say so.
            problem.add_note("A process left a pass that all have to make. Pass GradCAMCallback a smaller `probe`.")
            raise problem
        if not self.strategy.reduce_boolean_decision(problem is None):
            # Everyone hears everyone before anyone raises.
            told = [self.strategy.broadcast(_tell(problem), src=index) for index in range(self.count)]
            for index, what in enumerate(told):
                _raise(problem, what, index)
        return made  # type: ignore[return-value]  # None stands for a problem, which has been raised

    def rows(self, count: int) -> slice:
        """The rows that this process explains, of as many; each explains as many, so the last ones may overlap."""
        return self._share(self.index, count)

    def gather_rows(self, mine: Rows, count: int) -> Rows:
        """What was found in all ``count`` rows, from those that each process has made of its own `rows`."""
        if self.count == 1 or self.sharded:
            return mine
        # One collective for each tensor, of the same shape in all processes.
        gathered = mine.map(self._gather)
        shares: list[slice] = [self._share(index, count) for index in range(self.count)]
        ends = [0, *(share.stop for share in shares)]
        parts = [
            gathered.map(partial(_rows_of, index=index, new=ends[index] - share.start))
            for index, share in enumerate(shares)
        ]
        return type(mine).cat(parts)

    def _share(self, index: int, count: int) -> slice:
        if self.sharded:
            return slice(0, count)
        each = -(-count // self.count)
        start = min(index * each, count - each)
        return slice(start, start + each)

    def _gather(self, tensor: Tensor) -> Tensor:
        if not tensor.numel():
            return tensor.new_empty(self.count, *tensor.shape)
        every: Tensor = self.strategy.all_gather(tensor)
        return every

    def broadcast_buffers(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The first process's buffers by name: BatchNorm's statistics differ between processes while they train."""
        if self.count == 1:
            return {}
        mine = {name: buffer for name, buffer in model.named_buffers() if not isinstance(buffer, DTensor)}
        if not mine:
            return {}
        # As bytes, so that one collective carries them all, whatever their kinds.
        flat = self.run_on_all_ranks(
            lambda: torch.cat([_bytes(b).to(self.strategy.root_device) for b in mine.values()])
        )
        distributed.broadcast(flat, src=0)
        return self.run_on_all_ranks(lambda: dict(zip(mine, _unpacked(flat, list(mine.values())), strict=True)))

    def through(self, forward: Forward) -> Forward:
        """The same forward pass; where the strategy wraps the model to gather its shards, through the wrapper."""
        return _Through(forward, self.strategy.model) if self.sharded else forward


@dataclass(frozen=True)
class _Through:
    """Calls the wrapper, whose inner call of the model's ``forward`` is led to the forward pass that is wanted."""

    forward: Forward
    wrapper: nn.Module

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        if self.wrapper is model:
            return self.forward(model, probe)
        own = model.forward

        def led(images: Tensor) -> Any:
            vars(model)["forward"] = own  # which the pass itself may call
            return self.forward(model, replace(probe, images=images))  # as the wrapper casts them

        vars(model)["forward"] = led  # isolation puts attributes back
        return self.wrapper(probe.images)


def _rows_of(every: Tensor, index: int, new: int) -> Tensor:
    """What one process has added to the rows of those before it."""
    rows: Tensor = every[index][new:]
    return rows


def _bytes(buffer: Tensor) -> Tensor:
    return buffer.detach().contiguous().view(-1).view(torch.uint8)


def _unpacked(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [buffer.nbytes for buffer in like])
    # A clone starts where its kind may start; a part of the bytes does not.
    return [part.clone().view(b.dtype).view(b.shape).to(b.device) for part, b in zip(parts, like, strict=True)]


def _tried(make: Callable[[], Made]) -> tuple[Made | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:  # raised again, once all processes know of it
        return None, error


def _tell(problem: Exception | None) -> _Told | None:
    if problem is None:
        return None
    kind = next((kind for kind in _KINDS if isinstance(problem, kind)), None)
    return (kind, str(problem)) if kind else (RuntimeError, f"{type(problem).__name__}: {problem}")


def _raise(own: Exception | None, told: _Told | None, index: int) -> None:
    if own is not None:
        raise own
    if told is not None:
        kind, message = told
        raise kind(f"{message} (In process {index}.)")
