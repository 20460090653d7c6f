"""The curves and figures of one run, and how they reach the Trainer's loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from lightning_gradcam.callback.figure_tags import CHOICES
from lightning_gradcam.callback.run_files import RunFiles
from lightning_gradcam.callback.trainer import find_monitored_names
from lightning_gradcam.callback.warn_once import WarnOnce
from lightning_gradcam.loggers import log_image, log_numbers, log_text, sanitize_tag
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.stability.drift import MAIN_CURVES, is_comparison, select_logged


class SnapshotLogger:
    """Logs the numbers and figures of snapshots under one tag.

    Args:
        tag: The prefix of all names.
        ranks: The processes of the run.
        warn_once: Takes the warnings of loggers that fail.
        curves: Which curves loggers get: ``"main"`` or ``"all"``. Callbacks can monitor all of them in both cases.
    """

    def __init__(self, tag: str, ranks: Ranks, warn_once: WarnOnce, curves: Literal["main", "all"] = "main") -> None:
        self.tag, self.ranks, self.warn_once, self.curves = tag, ranks, warn_once, curves
        self.values: dict[str, Tensor | float] = {}
        self.step = 0
        self._run_files: RunFiles | None = None

    def record(self, numbers: Mapping[str, Tensor], overhead: float | None, step: int) -> None:
        """Keep the numbers of a snapshot, which are logged later."""
        self.values, self.step = {sanitize_tag(name): value for name, value in numbers.items()}, step
        if overhead is not None:
            self.values["overhead"] = overhead

    def log_figure(self, trainer: Any, key: str, figure: Tensor, step: int) -> None:
        """Log a figure on rank zero."""
        if self.ranks.is_rank_zero:
            self.warn_once(*log_image(self._find_loggers(trainer), f"{self.tag}/{key}", figure, step))

    def _find_loggers(self, trainer: Any) -> Sequence[Any]:
        """Return the Trainer's loggers, or the files of the run if it has none."""
        if getattr(trainer, "fast_dev_run", False):
            return ()
        self._run_files = self._run_files or RunFiles(trainer.default_root_dir, self.tag)
        return trainer.loggers or [self._run_files]

    def log_summary(self, trainer: Any, lines: Mapping[str, str], step: int) -> None:
        """Log a table of settings on rank zero."""
        if self.ranks.is_rank_zero:
            self.warn_once(*log_text(trainer.loggers, f"{self.tag}/{CHOICES}", lines, step))

    def select_values(self, trainer: Any, has_snapshot: bool, gave_up: bool) -> Mapping[str, Tensor | float]:
        """Return what to log at the end of an epoch: all numbers after a snapshot, else those that are monitored.

        A monitored value that is missing would end the run, so it is always included, even if explanations fail.
        """
        monitored = self._find_monitored(trainer)
        values = self._broadcast(select_logged(self.values, monitored, has_snapshot, gave_up))
        for name in sorted(values.keys() - self.values.keys()) if has_snapshot else ():
            if not is_comparison(name):  # those come with the second snapshot
                self.warn_once(
                    f"`{self.tag}/{name}` is monitored, but this run cannot measure it: its value stays at "
                    f"{values[name]}."
                )
        return values

    def _find_monitored(self, trainer: Any) -> set[str]:
        """Return the names of this callback's curves that other callbacks monitor."""
        prefix = f"{self.tag}/"
        return {name.removeprefix(prefix) for name in find_monitored_names(trainer) if name.startswith(prefix)}

    def _select_logged(self, trainer: Any, values: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
        """Return the curves that loggers get: the main ones and those that are monitored, or all."""
        logged = MAIN_CURVES | self._find_monitored(trainer)
        return {name: value for name, value in values.items() if self.curves == "all" or name in logged}

    def _broadcast(self, values: Mapping[str, Tensor | float]) -> Mapping[str, Tensor | float]:
        """Return rank zero's values: monitors that see other values decide differently, and the run hangs."""
        if self.ranks.count == 1:
            return values
        return self.ranks.broadcast_from_rank_zero(lambda: {name: float(value) for name, value in values.items()})

    def log_epoch(self, trainer: Any, module: nn.Module, values: Mapping[str, Tensor | float]) -> None:
        """Log values with Lightning's `log`, so that callbacks can monitor them, and to files if there is no logger."""
        if not values:
            return
        if not trainer.loggers:
            self.log_directly(trainer)
        if getattr(trainer, "barebones", False):  # where `log` only warns
            return
        logged = self._select_logged(trainer, values)
        unlogged = {name: value for name, value in values.items() if name not in logged}
        for group, logger in ((logged, None), (unlogged, False)):  # None is True, and does not warn of a missing logger
            # All ranks have the same values. Lightning requires a reduction: "max" returns them, a mean would round.
            module.log_dict(  # type: ignore[operator]  # a LightningModule
                self._add_prefix(group),
                logger=logger,
                on_step=False,
                on_epoch=True,
                batch_size=1,
                sync_dist=self.ranks.count > 1,
                reduce_fx="max",
            )

    def log_directly(self, trainer: Any) -> None:
        """Log to the loggers, in hooks where Lightning does not allow `log`; files get all curves."""
        if self.ranks.is_rank_zero:
            logged = self._select_logged(trainer, self.values) if trainer.loggers else self.values
            values = {name: float(value) for name, value in logged.items()}
            if values:
                self.warn_once(*log_numbers(self._find_loggers(trainer), self._add_prefix(values), self.step))

    def _add_prefix(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{self.tag}/{name}": value for name, value in values.items()}

    def reset(self) -> None:
        """Remove the values, which belong to other images than this run's."""
        self.values = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the latest values and their step as plain numbers."""
        return {"step": self.step, "values": {name: float(value) for name, value in self.values.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.step, self.values = state["step"], dict(state["values"])
