"""Queries about the Trainer's state, duck-typed so that they work with every package of Lightning."""

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
    """Return the step that Lightning logs ``val_loss`` with at the end of a validation."""
    loop = trainer.fit_loop.epoch_loop
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


def count_batches(trainer: Any) -> int:
    """Return the number of batches; unlike ``global_step``, it differs between any two moments of a run.

    Under gradient accumulation, several batches share one ``global_step``.
    """
    return int(trainer.fit_loop.total_batch_idx)


def is_before_first_step(trainer: Any) -> bool:
    """Return whether no training step has run, in this run or in those that it resumes."""
    return count_batches(trainer) <= 0 and trainer.global_step == 0


def has_validation(trainer: Any) -> bool:
    """Return whether validation batches will come. (An empty validation loader runs no validation.)"""
    counts = trainer.num_val_batches  # an empty list until the loaders are created
    return bool(trainer.enable_validation) and (not isinstance(counts, list) or not counts or sum(counts) > 0)


def takes_iterator(step: Any) -> bool:
    """Return whether a step takes the loader's iterator, so that its batch is known only at the end of the step."""
    return "dataloader_iter" in inspect.signature(step).parameters


def find_data_sources(trainer: Any) -> list[Any]:
    """Return the datasets and the datamodule, where normalization and class names may be found; validation first."""
    loaders, datamodule = [trainer.val_dataloaders, trainer.train_dataloader], getattr(trainer, "datamodule", None)
    return [*find_datasets(loaders), *([] if datamodule is None else [datamodule])]


def is_last_epoch(trainer: Any) -> bool:
    """Return whether training is known to end with this epoch."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    has_all_epochs = epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs
    has_all_steps = steps not in (None, -1) and trainer.global_step >= steps
    stops_early = trainer.should_stop and getattr(trainer.fit_loop, "_can_stop_early", True)
    return bool(has_all_epochs or has_all_steps or stops_early)


def find_monitored_names(trainer: Any) -> set[str]:
    """Return the names of all values that callbacks and learning-rate schedulers monitor."""
    monitoring = [*trainer.callbacks, *getattr(trainer.strategy, "lr_scheduler_configs", [])]
    return {name for owner in monitoring if isinstance(name := getattr(owner, "monitor", None), str)}


def describe_explained_weights(trainer: Any, gradcam_callback: Any) -> str:
    """Return which weights are explained after a validation if a callback swaps averages in, else an empty string.

    Callbacks run in their order, so it depends on which of the two comes first.
    """
    for index, callback in enumerate(trainer.callbacks):
        if any(base.__name__ == "WeightAveraging" for base in type(callback).__mro__):
            name = type(callback).__name__
            if trainer.callbacks.index(gradcam_callback) < index:
                return f"after validations the average of {name}, as for val_loss"
            return f"the training weights; to explain the average, place this callback before {name}"
    return ""


@contextmanager
def mute_logging(module: nn.Module) -> Iterator[None]:
    """Disable `self.log` in forward passes: the probe must not enter the user's metrics."""
    logging_modules = [m for m in module.modules() if callable(getattr(type(m), "log_dict", None))]
    try:
        for submodule in logging_modules:
            vars(submodule).update(log=_ignore, log_dict=_ignore)
        yield
    finally:
        for submodule in logging_modules:
            for name in ("log", "log_dict"):
                vars(submodule).pop(name, None)


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    pass


@dataclass(frozen=True)
class PrecisionForward:
    """A forward pass in the context of a validation step, and so in the precision of the run (autocast, dtype)."""

    forward: Forward
    precision: Any

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """Return the model's output."""
        with self.precision.val_step_context(), mute_logging(model):
            return self.forward(model, probe)
