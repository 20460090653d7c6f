"""Regimes of entry points other than `fit`, and of repeated calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.helpers.lit import Lit, loader
from tests.regimes.regime import Regime, Run


class AllVerbs(Lit):
    """A module with a step for each entry point."""

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch, batch_idx):
        return self(batch[0])


def around(verb: str) -> Callable[[Run], Any]:
    """Call an entry point, `fit`, and the entry point again; return its results."""

    def plan(run: Run) -> Any:
        trainer = run.new_trainer()
        said = [getattr(trainer, verb)(run.model, loader(6, 3, seed=2))]
        run.fit(trainer)
        return [*said, getattr(trainer, verb)(run.model, loader(6, 3, seed=2))]

    return plan


def resumed(run: Run) -> None:
    """Train one epoch, and continue from a checkpoint with another Trainer."""
    first = run.new_trainer(max_epochs=1)
    run.fit(first)
    first.save_checkpoint(run.root / "half.ckpt")
    run.model = run.regime.model()
    run.fit(run.new_trainer(), ckpt_path=run.root / "half.ckpt")


def twice(run: Run) -> None:
    """Fit another model with the same Trainer and callbacks."""
    trainer = run.new_trainer()
    run.fit(trainer)
    run.model = run.regime.model()
    trainer.fit_loop.max_epochs = 4
    run.fit(trainer)


ROWS = [
    Regime("validate", "before and after `fit`", "fit only", model=AllVerbs, plan=around("validate")),
    Regime("test", "before and after `fit`", "verbs", model=AllVerbs, plan=around("test")),
    Regime("predict", "before and after `fit`", "verbs", model=AllVerbs, plan=around("predict")),
    Regime("resumed", "the second epoch continues from a checkpoint", "resume", plan=resumed),
    Regime("fitted twice", "one Trainer, two models", "looked already", plan=twice, looks=2),
]  # fmt: skip
