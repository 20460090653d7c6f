"""Regimes of validation and of the end of training."""

from __future__ import annotations

from pytorch_lightning.loggers import CSVLogger

from tests.helpers.lit import loader
from tests.regimes.regime import Regime

ROWS = [
    Regime("no validation", "snapshots at the end of training epochs", "validates", val=None, looks=2),
    Regime(
        "epochs of one batch", "no validation, and no batch before the first step", "start has no batch",
        train=lambda: loader(12, 6), val=None, trainer={"limit_train_batches": 1},
    ),
    Regime("several validations", "two in every epoch", "looked already", trainer={"val_check_interval": 0.5}, looks=5),
    Regime(
        "validation every few batches", "across epochs", "between",
        trainer={"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 3}, looks=7,
    ),
    Regime(
        "validation every other epoch", "snapshots in between, too", "between",
        trainer={"check_val_every_n_epoch": 2, "max_epochs": 4}, looks=5,
    ),
    Regime("no sanity check", "no early batch", "no images yet", trainer={"num_sanity_val_steps": 0}, looks=2),
    Regime("complete sanity check", "all batches appear twice", "looked already", trainer={"num_sanity_val_steps": -1}),
    Regime("max_steps", "training ends inside an epoch", "looked already", trainer={"max_steps": 6, "max_epochs": -1}),
    Regime(
        "max_steps before any validation", "the end of training is the only snapshot", "end",
        trainer={"max_steps": 3}, val=lambda: loader(9, 1, seed=1), looks=1,
    ),
    Regime(
        "every other epoch", "and the last one", "every n",
        monitor=lambda: {"every_n_epochs": 2}, trainer={"max_epochs": 4}, looks=4,
    ),
    Regime("overfit_batches", "training and validation on two batches", "never loads", trainer={"overfit_batches": 2},
        tolerates="You requested to overfit"),
    Regime("fast_dev_run", "two batches of each, no files", "never loads", trainer={"fast_dev_run": 2}, looks=1),
    Regime(
        "limited batches", "only parts of the loaders are used", "never loads",
        trainer={"limit_train_batches": 2, "limit_val_batches": 0.5}, looks=2,
    ),
    Regime("no validation batches", "`limit_val_batches=0`", "validates", trainer={"limit_val_batches": 0}, looks=2),
    Regime(
        "barebones", "no logger, no sanity check, no `log`", "files",
        trainer={"barebones": True, "logger": None, "log_every_n_steps": None}, looks=2,
        tolerates="You are trying to `self.log",
    ),
    Regime("no logger", "figures become files", "files", trainer={"logger": False}),
    Regime("CSVLogger", "figures become files next to the table", "writer", trainer={"logger": CSVLogger}),
    Regime("single images", "the probe needs many batches", "sanity", val=lambda: loader(9, 1, seed=1), looks=2),
]  # fmt: skip
