"""Patience of other callbacks and of schedulers, used up by curves that repeat their value between snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning_gradcam.callback.trainer import has_validation


def find_short_patience(trainer: Any, tag: str, every_n_epochs: int) -> Iterator[str]:
    """Yield a message for each patience that is counted in repeated values.

    Between two snapshots, curves repeat their latest value, which counts as no improvement each time.

    Args:
        trainer: The Trainer of the run, once its schedulers exist.
        tag: The prefix of the curves.
        every_n_epochs: The number of epochs between snapshots.
    """
    for name, monitor, patience, epochs in _list_patience(trainer):
        if str(monitor).startswith(f"{tag}/") and epochs < every_n_epochs:
            new_values = patience * epochs // every_n_epochs
            enough = -(-patience * every_n_epochs // epochs)
            yield (
                f"{name} monitors {monitor!r}, which has a new value every {every_n_epochs} epochs and repeats it in "
                f"between, so `patience={patience}` waits for {new_values or 'no'} new value{'s' * (new_values != 1)}. "
                f"Pass `patience={enough}` to wait for {patience}, or `every_n_epochs={epochs}`."
            )


def _list_patience(trainer: Any) -> Iterator[tuple[str, str, int, int]]:
    """Yield the owner, the monitored curve and the number of each patience, and the epochs between its checks."""
    for callback in trainer.callbacks:
        patience = getattr(callback, "patience", None)
        if isinstance(patience, int) and isinstance(getattr(callback, "monitor", None), str):
            follows_validation = has_validation(trainer) and not getattr(callback, "_check_on_train_epoch_end", False)
            epochs = (trainer.check_val_every_n_epoch or 1) if follows_validation else 1
            yield type(callback).__name__, callback.monitor, patience, epochs
    for config in trainer.lr_scheduler_configs:
        patience = getattr(config.scheduler, "patience", None)
        if isinstance(patience, int) and config.interval == "epoch" and isinstance(config.monitor, str):
            yield type(config.scheduler).__name__, config.monitor, patience, config.frequency
