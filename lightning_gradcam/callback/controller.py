"""One training run: completes the probe, looks, shows and logs, and gives up without harm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn

from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.schedule import SnapshotSchedule
from lightning_gradcam.callback.session import ProbeSession
from lightning_gradcam.callback.trainer import (
    count_batches,
    find_data_sources,
    find_monitored_names,
    get_log_step,
    is_before_first_step,
    is_last_epoch,
)
from lightning_gradcam.callback.warn_once import WarnOnce
from lightning_gradcam.capture.forward import is_out_of_memory
from lightning_gradcam.errors import ForwardError, NotExplainableError
from lightning_gradcam.layers import check_layers
from lightning_gradcam.loggers import log_image, log_numbers, log_text, sanitize_tag
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.stability.drift import select_logged

STATE_VERSION = 2
"""Of what checkpoints hold; another one is not read."""


class FitController:
    """What the callback does in one `fit`; when, it decides itself.

    Args:
        config: What the user asked for.
        tag: What all names in the logger begin with.
        schedule: In which epochs to look.
        raises: Whether faults are raised instead of named in one warning.
    """

    def __init__(self, choices: CallbackConfig, tag: str, pace: SnapshotSchedule, raises: bool) -> None:
        self.config, self.tag, self.schedule, self.raises = choices, tag, pace, raises
        self.session = ProbeSession(choices)
        self.restored: Mapping[str, Any] | None = None
        self.gave_up = False
        self.looked_at: int | None = None
        self.logged_at: int | None = None
        self._values: dict[str, Tensor | float] = {}
        self._step = 0
        self.say = WarnOnce()

    def check(self, trainer: Any, module: nn.Module, weights: str = "") -> None:
        """What can be said before anything has run.

        Args:
            trainer: Whose run this is.
            module: The model.
            weights: Which weights are explained, where there are several.

        Raises:
            ValueError: A layer's name is unknown.
        """
        ranks = Ranks.of(trainer)
        self.session = ProbeSession(self.config, ranks)
        if weights:
            self.session.sources["weights"] = weights
        if not ranks.is_supported:
            self.gave_up = True
            self.say.warn(
                f"Looks are not served under {type(trainer.strategy).__name__}: there are no explanations in this run. "
                "One device, DDP, FSDP and ModelParallel are served."
            )
        with self._guarded(before_training=True):
            check_layers(self.config.layers, module)

    def _agreed(self, wish: bool) -> bool:
        """Whether all processes do something together: the first one decides."""
        return self.session.ranks.broadcast_from_rank_zero(lambda: wish and not self.gave_up)

    def offer(self, trainer: Any, batch: Any, source: str) -> None:
        """Gather from a batch."""
        if (
            self.session.gathering
            and self.session.ranks.is_rank_zero
            and not self.gave_up
            and trainer.state.fn == "fit"
        ):
            with self._guarded():
                self.session.offer(batch, source)

    def start(self, trainer: Any, module: nn.Module) -> None:
        """Go on from a checkpoint; or decide where to look before the first step, and look if the probe is complete.

        Raises:
            TypeError: A choice is of no known kind.
            ValueError: A choice does not fit the model.
        """
        if self.session.monitor or not self.session.ranks.is_ready:
            return
        restored = self.restored is not None and self.restored["probe"] is not None
        if not self._agreed(restored or self.session.probe_source.has_images):
            return
        if not restored:
            with self._guarded(before_training=True):
                self.session.prepare(module, trainer.precision_plugin)
        if self._agreed(restored or self.session.settled):
            self.complete(trainer, module, before_training=True)
        if self.session.monitor and self._agreed(is_before_first_step(trainer)):
            self.look(trainer, module, "start · before the first step", get_log_step(trainer))
            self.log_directly(trainer, without=("drift", "drift_from_start"))
            self.looked_at = None  # before the step of a batch, whose number the end of its epoch may still have

    def complete(self, trainer: Any, module: nn.Module, *, before_training: bool = False) -> None:
        """Fix the probe, and say what was chosen."""
        with self._guarded(before_training):
            problems = self.session.complete(
                module, trainer.precision_plugin, find_data_sources(trainer), self.restored
            )
            if (
                self.session.monitor and not self.session.monitor.track.looks
            ):  # what was restored, if anything, was other
                self._values, self.schedule.first_epoch, self.looked_at = {}, None, None
            self.restored = None
            if self.session.ranks.is_rank_zero:
                self.say.warn(*problems)
                facts = self.session.describe()
                listed = "\n".join(f"  {what}: {why}" for what, why in facts.items())
                rank_zero_info(f"GradCAMCallback watches\n{listed}")
                self.say.warn(*log_text(trainer.loggers, f"{self.tag}/choices", facts, get_log_step(trainer)))

    def look_if_due(self, trainer: Any, module: nn.Module, step: int, wait: bool = False) -> None:
        """At the end of an epoch or validation: look where it is time, and log; ``wait`` for a complete probe."""
        if not self.session.monitor and self._agreed(not wait):
            self.complete(trainer, module)
        epoch, looked = trainer.current_epoch, False
        if self.session.monitor and self._agreed(
            self.looked_at != count_batches(trainer) and self.schedule.due(epoch, is_last_epoch(trainer))
        ):
            self.look(trainer, module, f"epoch {epoch} · step {step}", step)
            looked = not self.gave_up
        self._log(trainer, module, looked)

    def finish(self, trainer: Any, module: nn.Module) -> None:
        """Look at what training ended with, and show the run."""
        if not self.session.monitor and self._agreed(True):
            self.complete(trainer, module)
        if self.session.monitor and self._agreed(self.looked_at != count_batches(trainer)):
            step = max(get_log_step(trainer) - 1, 0)
            self.look(trainer, module, f"end · step {step}", step)
            self.log_directly(trainer)
        self.show_film(trainer)

    def look(self, trainer: Any, module: nn.Module, moment: str, step: int) -> None:
        """Explain, draw and show."""
        watch = self.session.monitor
        assert watch is not None
        self.looked_at = count_batches(trainer)
        with self._guarded(), trainer.profiler.profile(f"[GradCAMCallback]{self.tag}.look"):
            with self.schedule.clocked(watch.probe.images.device):
                look = watch.look(module, moment)
                for key, picture in look.pictures.items():
                    self._show(trainer, key, picture, step)
            self._values, self._step = {sanitize_tag(name): value for name, value in look.numbers.items()}, step
            self._values |= {} if self.schedule.share is None else {"overhead": self.schedule.share}
            self.say.warn(self.schedule.note, *watch.complaints(look))
            self.say.warn_here(watch.portions.note)  # each process has a memory of its own

    def show_film(self, trainer: Any) -> None:
        """The run so far as one picture."""
        with self._guarded():
            film = self.session.monitor.draw_film() if self.session.monitor else None
            if film is not None:
                self._show(trainer, "film", film, self._step)

    def _show(self, trainer: Any, key: str, picture: Tensor, step: int) -> None:
        if self.session.ranks.is_rank_zero and not getattr(trainer, "fast_dev_run", False):
            self.say.warn(*log_image(trainer.loggers, trainer.default_root_dir, f"{self.tag}/{key}", picture, step))

    def _log(self, trainer: Any, module: Any, looked: bool) -> None:
        """Through `log`, so that callbacks can monitor; what they wait for is there, whatever happens to looks."""
        self.logged_at = count_batches(trainer)
        awaited = {
            name.removeprefix(f"{self.tag}/")
            for name in find_monitored_names(trainer)
            if name.startswith(f"{self.tag}/")
        }
        values = self._of_first(select_logged(self._values, awaited, looked, self.gave_up))
        for name in sorted(values.keys() - self._values.keys()) if looked else ():
            self.say.warn(f"`{self.tag}/{name}` is monitored, but this run cannot measure it: it stays {values[name]}.")
        if values and not getattr(trainer, "barebones", False):  # where `log` does nothing but warn
            with self._guarded():
                # The same everywhere, so the largest is any: Lightning asks for a reduction, and a mean would round.
                several = self.session.ranks.count > 1
                module.log_dict(
                    self._tagged(values), on_step=False, on_epoch=True, batch_size=1, sync_dist=several, reduce_fx="max"
                )

    def _of_first(self, values: Mapping[str, Tensor | float]) -> Mapping[str, Tensor | float]:
        """Every process has to log the same, or monitors decide differently and the run hangs or dies."""
        ranks = self.session.ranks
        if ranks.count == 1:
            return values
        return ranks.broadcast_from_rank_zero(lambda: {name: float(value) for name, value in values.items()})

    def log_directly(self, trainer: Any, without: Sequence[str] = ()) -> None:
        """To the loggers, where Lightning allows no `log`; all curves but these."""
        if not self.gave_up and self.session.ranks.is_rank_zero:
            values = {name: float(v) for name, v in self._values.items() if name.split("/")[0] not in without}
            self.say.warn(*log_numbers(trainer.loggers, self._tagged(values), self._step))

    def _tagged(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{self.tag}/{name}": value for name, value in values.items()}

    @contextmanager
    def _guarded(self, before_training: bool = False) -> Iterator[None]:
        """A fault of the choices is raised before training; any other is named once, and looks end."""
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error) and self.session.ranks.sharded:
                raise  # the processes are out of step
            given = isinstance(self.config.probe, Probe) or self.config.forward is not None
            wrong = isinstance(error, (TypeError, ValueError)) or (given and isinstance(error, ForwardError))
            if self.raises:
                raise
            if before_training and wrong:
                raise ValueError(str(error)) from error
            self.gave_up = True
            what = str(error) if isinstance(error, NotExplainableError) else f"{type(error).__name__}: {error}"
            if is_out_of_memory(error):
                what += " (a smaller `probe`, a later layer, or smaller batches in training leave room)"
            self.say.warn(
                f"No explanations from here on: {what.rstrip('.')}. Training goes on without them; `on_error='raise'` "
                "shows where it happened."
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to look at the same images and go on with the curves."""
        if not self.session.monitor and self.restored is not None:
            return dict(self.restored)  # nothing has been looked at since
        state = self.session.state_dict()
        values = {name: float(value) for name, value in self._values.items()}
        about = {
            "first_epoch": self.schedule.first_epoch,
            "looked_at": self.looked_at,
            "step": self._step,
            "values": values,
        }
        return {"version": STATE_VERSION, **state, **about} if state else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a run; what it needs of the device waits until training starts."""
        if state and state.get("version") != STATE_VERSION:
            self.say.warn("The checkpoint was written by another version of this callback: its looks start anew.")
        elif state:
            self.restored, self._step = state, state["step"]
            self.schedule.first_epoch, self.looked_at = state["first_epoch"], state["looked_at"]
            self._values = dict(state["values"])
