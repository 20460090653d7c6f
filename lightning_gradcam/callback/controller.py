"""The controller of one `fit`: when the probe is explained, and when its snapshots are logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info
from torch import nn

from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.failure_guard import FailureGuard
from lightning_gradcam.callback.figure_tags import FILM, assign_tags
from lightning_gradcam.callback.import_paths import import_rule
from lightning_gradcam.callback.patience import find_short_patience
from lightning_gradcam.callback.schedule import SnapshotSchedule
from lightning_gradcam.callback.session import ProbeSession
from lightning_gradcam.callback.snapshot_logger import SnapshotLogger
from lightning_gradcam.callback.trainer import (
    count_batches,
    find_data_sources,
    get_log_step,
    is_before_first_step,
    is_last_epoch,
)
from lightning_gradcam.callback.warn_once import WarnOnce
from lightning_gradcam.errors import UninitializedModelError
from lightning_gradcam.layers import check_layers
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.monitor.monitor import ProbeMonitor

STATE_VERSION = 2
"""The version of the checkpoint's format; other versions are not read."""


class FitController:
    """Decides in one `fit` when to start monitoring, take snapshots and log them.

    Args:
        config: The callback's configuration.
        ranks: The processes of the run.
    """

    def __init__(self, config: CallbackConfig, ranks: Ranks) -> None:
        self.config, self.ranks, self.warn_once = config, ranks, WarnOnce()
        self.guard = FailureGuard(config, ranks, self.warn_once)
        self.session = ProbeSession(config, ranks, self.warn_once)
        self.schedule = SnapshotSchedule(config.every_n_epochs, config.max_overhead)
        self.logger = SnapshotLogger(config.tag, ranks, self.warn_once, config.curves)
        self._late_start = "the images were not complete before the first step (pass `probe=(images, labels)`)"
        self.checkpoint: Mapping[str, Any] | None = None
        self.explained_at: int | None = None
        self.logged_at: int | None = None

    @property
    def monitor(self) -> ProbeMonitor | None:
        """The monitor, once the probe is complete."""
        return self.session.monitor

    def check(self, trainer: Any, module: nn.Module, weights: str = "") -> None:
        """Check what can be checked before training starts.

        Args:
            trainer: The Trainer of the run.
            module: The model.
            weights: Which weights are explained, if there are several.

        Raises:
            ValueError: A layer's name is unknown.
        """
        if weights:
            self.session.add_source("weights", weights)
        if not self.ranks.is_supported:
            self.guard.give_up(
                f"GradCAMCallback does not support `{type(trainer.strategy).__name__}`; this run will not log "
                "explanations. Supported strategies: single device, DDP, FSDP and ModelParallel."
            )
        with self.guard.catch(before_training=True):
            check_layers(import_rule(self.config.layers, module), module)

    def _agree(self, condition: bool) -> bool:
        """Return rank zero's decision on whether all processes do something together."""
        return self.ranks.broadcast_from_rank_zero(lambda: condition and not self.guard.gave_up)

    def add_batch(self, trainer: Any, batch: Any, name: str) -> None:
        """Collect images from a batch on rank zero."""
        is_collecting = self.session.is_collecting and self.ranks.is_rank_zero and not self.guard.gave_up
        if is_collecting and trainer.state.fn == "fit":
            with self.guard.catch():
                self.session.add_batch(batch, name)

    def start(self, trainer: Any, module: nn.Module) -> None:
        """Resume from a checkpoint; or choose the layers before the first step, and explain the probe if complete.

        A model that creates parameters in its first forward pass is explained after the first epoch.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument does not fit the model.
        """
        if not self.guard.gave_up:
            self.warn_once(*find_short_patience(trainer, self.config.tag, self.config.every_n_epochs))
        if self.monitor or not self.ranks.is_ready:
            return
        has_saved_probe = self.checkpoint is not None and self.checkpoint["probe"] is not None
        if not self._agree(has_saved_probe or self.session.probe_source.has_images):
            return
        if not has_saved_probe:
            with self.guard.catch(before_training=True):
                try:
                    self.session.build_explainer(module, trainer.precision_plugin)
                except UninitializedModelError:
                    self._late_start = "the model creates parameters in its first forward pass"
                    return  # the first step creates them; the first snapshot follows it
        if self._agree(has_saved_probe or self.session.is_complete):
            self.start_monitoring(trainer, module, before_training=True)
        if self.monitor and self._agree(is_before_first_step(trainer)):
            self.take_snapshot(trainer, module, "start · before the first step", get_log_step(trainer))
            self.log_directly(trainer)
            self.explained_at = None  # not the batch's number: the end of its epoch may have the same one

    def start_monitoring(self, trainer: Any, module: nn.Module, *, before_training: bool = False) -> None:
        """Fix the probe, and report what is explained."""
        with self.guard.catch(before_training):
            self.session.start_monitoring(module, trainer.precision_plugin, find_data_sources(trainer), self.checkpoint)
            if self.monitor and not self.monitor.tracker.snapshots:  # nothing was resumed
                self.logger.reset()
                self.schedule.first_epoch, self.explained_at = None, None
                self._describe_start(trainer, before_training)
            self.checkpoint = None
            if self.ranks.is_rank_zero:
                lines = self.session.summarize()
                rank_zero_info("GradCAMCallback explains\n" + "\n".join(f"  {k}: {line}" for k, line in lines.items()))
                self.logger.log_summary(trainer, lines, get_log_step(trainer))

    def _describe_start(self, trainer: Any, before_training: bool) -> None:
        """Say in the summary if the first snapshot is not one of the initial weights, and why."""
        if before_training and is_before_first_step(trainer):
            return
        reason = "this run continues an earlier one" if before_training else self._late_start
        self.session.add_source(
            "start",
            f"the first snapshot, in epoch {trainer.current_epoch}: `drift_from_start` compares with it, because "
            f"{reason}",
        )

    def take_snapshot_if_due(self, trainer: Any, module: nn.Module, step: int, wait: bool = False) -> None:
        """Take a snapshot at the end of an epoch or validation if it is due, and log.

        Args:
            trainer: The Trainer of the run.
            module: The model.
            step: The logger's step.
            wait: Whether to wait for more batches while the probe is not complete.
        """
        if not self.monitor and self._agree(not wait):
            self.start_monitoring(trainer, module)
        epoch, has_snapshot = trainer.current_epoch, False
        if self.monitor and self._agree(
            self.explained_at != count_batches(trainer) and self.schedule.is_due(epoch, is_last_epoch(trainer))
        ):
            self.take_snapshot(trainer, module, f"epoch {epoch} · step {step}", step)
            has_snapshot = not self.guard.gave_up
        self.logged_at = count_batches(trainer)
        values = self.logger.select_values(trainer, has_snapshot, self.guard.gave_up)
        with self.guard.catch():
            self.logger.log_epoch(trainer, module, values)

    def finish(self, trainer: Any, module: nn.Module) -> None:
        """Explain the final weights, and log the film of the run."""
        if not self.monitor and self._agree(True):
            self.start_monitoring(trainer, module)
        if self.monitor and self._agree(self.explained_at != count_batches(trainer)):
            step = max(get_log_step(trainer) - 1, 0)
            self.take_snapshot(trainer, module, f"end · step {step}", step)
            self.log_directly(trainer)
        self.log_film(trainer)

    def take_snapshot(self, trainer: Any, module: nn.Module, moment: str, step: int) -> None:
        """Explain the probe, and log the figures; the numbers are kept for `log_epoch`."""
        monitor = self.monitor
        assert monitor is not None
        self.explained_at = count_batches(trainer)
        with self.guard.catch(), trainer.profiler.profile(f"[GradCAMCallback]{self.config.tag}.snapshot"):
            with self.schedule.measure_time(monitor.probe.images.device):
                snapshot = monitor.take_snapshot(module, moment)
                tags = assign_tags(snapshot.figures)
                for key, figure in snapshot.figures.items():
                    self.logger.log_figure(trainer, tags[key], figure, step)
            self.logger.record(snapshot.numbers, self.schedule.overhead, step)
            self.warn_once(self.schedule.warning, *monitor.find_problems(snapshot))
            self.warn_once.warn_on_this_rank(monitor.sharded_explainer.memory_warning)

    def log_directly(self, trainer: Any) -> None:
        """Log the latest numbers in a hook where Lightning does not allow `log`."""
        if not self.guard.gave_up:
            self.logger.log_directly(trainer)

    def log_film(self, trainer: Any) -> None:
        """Log the film of the run so far."""
        with self.guard.catch():
            film = self.monitor.draw_film() if self.monitor else None
            if film is not None:
                self.logger.log_figure(trainer, FILM, film, self.logger.step)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to explain the same images and continue the curves."""
        if not self.monitor and self.checkpoint is not None:
            return dict(self.checkpoint)  # no snapshot was taken since it was loaded
        state = self.session.state_dict()
        progress = {"first_epoch": self.schedule.first_epoch, "looked_at": self.explained_at}
        progress |= self.logger.state_dict()
        return {"version": STATE_VERSION, **state, **progress} if state else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume a run; what needs the device waits until training starts."""
        if state and state.get("version") != STATE_VERSION:
            self.warn_once("The checkpoint was written by another version of this callback: its curves start over.")
        elif state:
            self.checkpoint = state
            self.schedule.first_epoch, self.explained_at = state["first_epoch"], state["looked_at"]
            self.logger.load_state_dict(state)
