"""A regime, and one run of it."""

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
        name: Name in the test and the table.
        about: What is special about it, for the table.
        breaks: The entry of `breaks.BREAKS` that makes the row fail.
        model: Creates the module.
        train: Creates the training loaders for `fit`.
        val: Creates the validation loaders; None for no validation.
        trainer: Further arguments of the Trainer.
        before: Creates callbacks that come before `GradCAMCallback`.
        after: Creates callbacks that come after it.
        monitor: Creates further arguments of `GradCAMCallback`.
        tags: Tags; one callback each.
        looks: The expected number of snapshots.
        plan: Runs the regime; by default `fit`.
        also: Returns further values to compare.
        tolerates: A regular expression for Lightning's warnings about small runs.
        skip: Reason to skip the row; empty to run it.
        slow: Takes over ten seconds.
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
        root: Folder of its files.
        watched: Uses the callback.
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
        """Create a Trainer of this regime with new callbacks."""
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
        """Train on the data of the regime."""
        val = self.regime.val() if self.regime.val else None
        trainer.fit(self.model, self.regime.train(), val, **kwargs)
