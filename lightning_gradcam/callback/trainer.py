"""What a Trainer says about the moment. Duck-typed, so that it serves every package that Lightning comes in."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_gradcam.probe.dataset_info import find_datasets
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward


def get_log_step(trainer: Any) -> int:
    """The step that Lightning gives to what is logged at the end of a validation, and so to ``val_loss``."""
    loop = trainer.fit_loop.epoch_loop
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


def count_batches(trainer: Any) -> int:
    """Tells moments apart; ``global_step`` does not under gradient accumulation."""
    return int(trainer.fit_loop.total_batch_idx)


def is_before_first_step(trainer: Any) -> bool:
    """Whether no training step has been made in this run or those that it goes on from."""
    return count_batches(trainer) <= 0 and trainer.global_step == 0


def has_validation(trainer: Any) -> bool:
    """Whether validation batches will come. (An empty validation loader runs no validation.)"""
    counts = trainer.num_val_batches  # an empty list before the loaders are there
    return bool(trainer.enable_validation) and (not isinstance(counts, list) or not counts or sum(counts) > 0)


def takes_iterator(step: Any) -> bool:
    """Whether a step is handed the loader's iterator; batches are known only at its end then."""
    return "dataloader_iter" in inspect.signature(step).parameters


def find_data_sources(trainer: Any) -> list[Any]:
    """Datasets and datamodule, where normalisation and class names may be found; validation first."""
    loaders, module = [trainer.val_dataloaders, trainer.train_dataloader], getattr(trainer, "datamodule", None)
    return [*find_datasets(loaders), *([] if module is None else [module])]


def is_last_epoch(trainer: Any) -> bool:
    """Whether training is known to end with this epoch."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    ends = epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs
    stops = trainer.should_stop and getattr(trainer.fit_loop, "_can_stop_early", True)
    return bool(ends or (steps not in (None, -1) and trainer.global_step >= steps) or stops)


def find_monitored_names(trainer: Any) -> set[str]:
    """The names of all values that callbacks and learning-rate schedulers wait for."""
    watchers = [*trainer.callbacks, *getattr(trainer.strategy, "lr_scheduler_configs", [])]
    return {name for watcher in watchers if isinstance(name := getattr(watcher, "monitor", None), str)}


def describe_explained_weights(trainer: Any, ours: Any) -> str:
    """Which weights stand in the model when our turn comes after a validation, where a callback swaps averages in."""
    for at, callback in enumerate(trainer.callbacks):
        if any(c.__name__ == "WeightAveraging" for c in type(callback).__mro__):
            name = type(callback).__name__
            if trainer.callbacks.index(ours) < at:
                return f"after validations the average of {name}, as for val_loss"
            return f"those in training; before {name} in the list of callbacks, this one would explain the average"
    return ""


@contextmanager
def mute_logging(module: nn.Module) -> Iterator[None]:
    """Inside, `self.log` in a forward pass does nothing: the probe is no part of the user's metrics."""
    silenced = [m for m in module.modules() if callable(getattr(type(m), "log_dict", None))]
    try:
        for silent in silenced:
            vars(silent).update(log=_ignore, log_dict=_ignore)
        yield
    finally:
        for silent in silenced:
            for name in ("log", "log_dict"):
                vars(silent).pop(name, None)


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    pass


@dataclass(frozen=True)
class PrecisionForward:
    """A forward pass as a validation step makes it: in the precision of the run (autocast, or other defaults)."""

    forward: Forward
    precision: Any

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """What the model returns in a validation step's context."""
        with self.precision.val_step_context(), mute_logging(model):
            return self.forward(model, probe)
