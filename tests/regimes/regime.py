"""What a row of the matrix says, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from lightning_gradcam import GradCAMCallback
from tests.helpers.lit import Lit, loader
from tests.helpers.recorder import Notebook, Recorder, flat, state_of


@dataclass(frozen=True)
class Regime:
    """A way to train.

    Args:
        name: What the test and the table call it.
        about: What is special, for the table.
        breaks: The entry of `breaks.BREAKS` that turns the row red.
        model: Makes the module.
        train: Makes what `fit` takes as training loaders.
        val: The same for validation; None for no validation.
        trainer: Arguments of the Trainer, besides the quiet and short ones.
        before: Makes callbacks that stand in front of `GradCAMCallback`.
        after: The same for behind it.
        monitor: Makes the arguments of `GradCAMCallback`, besides a small probe.
        tags: One callback for each.
        looks: How many looks are to be made.
        plan: What is called, and in which order; by default `fit`.
        also: What else of the run to compare.
        tolerates: A regular expression: Lightning's own warnings about so small a run.
        skip: Why the row cannot run here; empty where it can.
        slow: Whether it takes over ten seconds.
    """

    name: str
    about: str
    breaks: str
    model: Callable[[], LightningModule] = Lit
    train: Callable[[], Any] = lambda: loader(12, 3, shuffle=True)
    val: Callable[[], Any] | None = lambda: loader(9, 3, seed=1)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[], Sequence[Callback]] = tuple
    after: Callable[[], Sequence[Callback]] = tuple
    monitor: Callable[[], Mapping[str, Any]] = dict
    tags: tuple[str, ...] = ("gradcam",)
    looks: int = 3
    plan: Callable[[Run], Any] = lambda run: run.fit(run.new_trainer())
    also: Callable[[Trainer], Any] = lambda trainer: None
    tolerates: str = ""
    skip: str = ""
    slow: bool = False


class Run:
    """One seeded run of a regime, with or without the callback.

    Args:
        regime: The row.
        root: Where files go.
        watched: Whether the callback is there.
    """

    def __init__(self, regime: Regime, root: Path, watched: bool) -> None:
        seed_everything(7, verbose=False)
        self.regime, self.root, self.watched = regime, root, watched
        self.recorder = Recorder(regime.tags)
        self.notebook = Notebook(self.recorder)
        self.watchers: list[GradCAMCallback] = []
        self.model = regime.model()
        returned = regime.plan(self)
        said = {"returned": returned, "also": regime.also(self.last_trainer), "logged": self.notebook.curves}
        self.results = flat({**said, **state_of(self.model)})
        self.looks = [watcher.monitor.tracker.snapshots if watcher.monitor else 0 for watcher in self.watchers]
        self.pictures = len(self.notebook.pictures) + len(list(root.rglob("*.png")))

    def new_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer of this regime with callbacks of its own."""
        self.watchers = [
            GradCAMCallback(**{"probe": 4, "tag": tag, **self.regime.monitor()})
            for tag in self.regime.tags
            if self.watched
        ]
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        short = {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", "logger": self.notebook}
        arguments = {"default_root_dir": self.root, **quiet, **short, **self.regime.trainer, **kwargs}
        if isinstance(arguments["logger"], type):
            arguments["logger"] = arguments["logger"](self.root)
        callbacks = [*self.regime.before(), *self.watchers, *self.regime.after(), self.recorder]
        self.last_trainer = Trainer(**arguments, callbacks=callbacks)
        return self.last_trainer

    def fit(self, trainer: Trainer, **kwargs: Any) -> None:
        """Train with the regime's data."""
        val = self.regime.val() if self.regime.val else None
        trainer.fit(self.model, self.regime.train(), val, **kwargs)
