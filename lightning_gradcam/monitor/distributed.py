"""Collectives for multi-process runs.

Rank zero decides; an error on any rank is raised on all ranks, so that none of them deadlocks.
"""

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

Value = TypeVar("Value")
Shard = TypeVar("Shard", Explanation, AttackedExplanation)

_REPLICAS = ("SingleDevice", "DDP")
_SHARDS = ("FSDP", "ModelParallel")
_ERROR_TYPES = (TypeError, ValueError, ForwardError, NotExplainableError)
_ErrorMessage = tuple[type[Exception], str]


def _is_instance(strategy: Any, prefixes: tuple[str, ...]) -> bool:
    """Return whether the name of the strategy's class, or of a base class, has one of the prefixes."""
    return any(base.__name__.startswith(prefixes) for base in type(strategy).__mro__)


@dataclass(frozen=True)
class Ranks:
    """All processes of a run, seen from one of them.

    Args:
        strategy: Lightning's strategy, whose collectives are used.
        index: The rank of this process.
        count: The number of processes.
    """

    strategy: Any = None
    index: int = 0
    count: int = 1

    @staticmethod
    def from_trainer(trainer: Any) -> Ranks:
        """Return the processes of a Trainer's run."""
        return Ranks(trainer.strategy, int(trainer.global_rank), int(trainer.world_size))

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that draws and writes."""
        return self.index == 0

    @property
    def has_sharded_model(self) -> bool:
        """Whether no process has the whole model, so that all must run it together."""
        return _is_instance(self.strategy, _SHARDS)

    @property
    def is_supported(self) -> bool:
        """Whether models can be explained under this strategy."""
        is_known = self.has_sharded_model or self.count == 1 or _is_instance(self.strategy, _REPLICAS)
        return is_known and not _is_instance(self.strategy, ("DeepSpeed",))  # a subclass of the DDP strategy

    @property
    def is_ready(self) -> bool:
        """Whether the model can run before the first step; FSDP must initialize in the run's own first pass."""
        return getattr(getattr(self.strategy, "model", None), "_is_root", True) is not None

    def broadcast_from_rank_zero(self, compute: Callable[[], Value]) -> Value:
        """Run a function on rank zero, and return its result, or raise its error, on all ranks."""
        if self.count == 1:
            return compute()
        local, error = _try(compute) if self.is_rank_zero else (None, None)
        result: Value
        result, message = self.strategy.broadcast((local, _encode_error(error)))
        _raise(error, message, 0)
        return result

    def run_on_all_ranks(self, compute: Callable[[], Value]) -> Value:
        """Run a function on all ranks, return this rank's result, and raise on all ranks if any of them fails.

        If memory runs out on one rank inside the pass of a sharded model, the run ends, because the other ranks wait
        inside that pass.
        """
        if self.count == 1:
            return compute()
        result, error = _try(compute)
        if error is not None and self.has_sharded_model and is_out_of_memory(error):
            # The other ranks wait inside the pass for shards that never arrive, so only this error can tell.
            error.add_note(
                "A process stopped a forward pass that all processes must run together. Pass `GradCAMCallback` a "
                "smaller `probe`."
            )
            raise error
        if not self.strategy.reduce_boolean_decision(error is None):
            # All ranks receive all errors before any of them raises.
            messages = [self.strategy.broadcast(_encode_error(error), src=index) for index in range(self.count)]
            for index, message in enumerate(messages):
                _raise(error, message, index)
        return result  # type: ignore[return-value]  # None stands for an error, which has been raised

    def get_shard(self, count: int) -> slice:
        """Return which of ``count`` images this process explains; shards have one size, so the last may overlap."""
        return self._get_shard_of(self.index, count)

    def gather_shards(self, shard: Shard, count: int) -> Shard:
        """Return the result for all ``count`` images, from the shards of all processes."""
        if self.count == 1 or self.has_sharded_model:
            return shard
        # One collective for each tensor, which has the same shape in all processes.
        gathered = shard.map(self._gather)
        shards: list[slice] = [self._get_shard_of(index, count) for index in range(self.count)]
        stops = [0, *(rows.stop for rows in shards)]
        parts = [
            gathered.map(partial(_select_new, index=index, new=stops[index] - rows.start))
            for index, rows in enumerate(shards)
        ]
        return type(shard).cat(parts)

    def _get_shard_of(self, index: int, count: int) -> slice:
        if self.has_sharded_model:
            return slice(0, count)
        size = -(-count // self.count)
        start = min(index * size, count - size)
        return slice(start, start + size)

    def _gather(self, tensor: Tensor) -> Tensor:
        if not tensor.numel():
            return tensor.new_empty(self.count, *tensor.shape)
        gathered: Tensor = self.strategy.all_gather(tensor)
        return gathered

    def broadcast_buffers(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return rank zero's buffers by name: the statistics of BatchNorm differ between ranks during training."""
        if self.count == 1:
            return {}
        buffers = {name: buffer for name, buffer in model.named_buffers() if not isinstance(buffer, DTensor)}
        if not buffers:
            return {}
        # As bytes, so that one collective carries buffers of all dtypes.
        flat = self.run_on_all_ranks(
            lambda: torch.cat([_to_bytes(buffer).to(self.strategy.root_device) for buffer in buffers.values()])
        )
        distributed.broadcast(flat, src=0)
        return self.run_on_all_ranks(lambda: dict(zip(buffers, _from_bytes(flat, list(buffers.values())), strict=True)))

    def wrap_forward(self, forward: Forward) -> Forward:
        """Return a forward pass through the strategy's wrapper if that gathers the shards, else the same pass."""
        return _ForwardThroughWrapper(forward, self.strategy.model) if self.has_sharded_model else forward


@dataclass(frozen=True)
class _ForwardThroughWrapper:
    """Calls the wrapper, and redirects its inner call of the model's ``forward`` to the requested pass."""

    forward: Forward
    wrapper: nn.Module

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        if self.wrapper is model:
            return self.forward(model, probe)
        original_forward = model.forward

        def redirect(images: Tensor) -> Any:
            vars(model)["forward"] = original_forward  # which the pass itself may call
            return self.forward(model, replace(probe, images=images))  # as the wrapper casts them

        vars(model)["forward"] = redirect  # isolation restores the attribute
        return self.wrapper(probe.images)


def _select_new(gathered: Tensor, index: int, new: int) -> Tensor:
    """Return the images that one process explained and those before it did not."""
    rows: Tensor = gathered[index][new:]
    return rows


def _to_bytes(buffer: Tensor) -> Tensor:
    return buffer.detach().contiguous().view(-1).view(torch.uint8)


def _from_bytes(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    slices = torch.split(flat, [buffer.nbytes for buffer in like])
    # A clone is aligned for its dtype; a slice of the bytes may not be.
    return [raw.clone().view(b.dtype).view(b.shape).to(b.device) for raw, b in zip(slices, like, strict=True)]


def _try(compute: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
    try:
        return compute(), None
    except Exception as error:  # raised again, once all ranks know of it
        return None, error


def _encode_error(error: Exception | None) -> _ErrorMessage | None:
    """Return an error's type and message, which can be sent; other types become a RuntimeError."""
    if error is None:
        return None
    error_type = next((error_type for error_type in _ERROR_TYPES if isinstance(error, error_type)), None)
    return (error_type, str(error)) if error_type else (RuntimeError, f"{type(error).__name__}: {error}")


def _raise(error: Exception | None, message: _ErrorMessage | None, index: int) -> None:
    """Raise this rank's error, else the one received from another rank, if there is one."""
    if error is not None:
        raise error
    if message is not None:
        error_type, text = message
        raise error_type(f"{text} (In process {index}.)")
