"""What a Trainer says about the moment. Duck-typed, so that it serves every package that Lightning comes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_gradcam.probe import Forward, Probe


def log_step(trainer: Any) -> int:
    """The step that Lightning gives to what is logged at the end of a validation, and so to ``val_loss``."""
    loop = trainer.fit_loop.epoch_loop
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


def batches_done(trainer: Any) -> int:
    """Tells moments apart; ``global_step`` does not under gradient accumulation."""
    return int(trainer.fit_loop.total_batch_idx)


def validates(trainer: Any) -> bool:
    """Whether validation batches will come. (An empty validation loader runs no validation.)"""
    counts = trainer.num_val_batches
    return bool(trainer.enable_validation) and (sum(counts) if isinstance(counts, list) else counts) > 0


def is_last_epoch(trainer: Any) -> bool:
    """Whether training is known to end with this epoch."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    ends = epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs
    return bool(ends or (steps not in (None, -1) and trainer.global_step >= steps) or trainer.should_stop)


def monitored(trainer: Any) -> set[str]:
    """The names of all values that callbacks and learning-rate schedulers wait for."""
    watchers = [*trainer.callbacks, *getattr(trainer.strategy, "lr_scheduler_configs", [])]
    return {name for watcher in watchers if isinstance(name := getattr(watcher, "monitor", None), str)}


@dataclass(frozen=True)
class InPrecision:
    """A forward pass in the precision of the run (autocast, or half-precision defaults)."""

    forward: Forward
    precision: Any

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """What the model returns in a validation step's context."""
        with self.precision.val_step_context():
            return self.forward(model, probe)
