"""The two packages of Lightning, for tests that run in each of them."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

from tests.helpers.lit import Body

NAMES = ("pytorch_lightning", "lightning.pytorch")


def package_of(name):
    """One package, a model of its own kind, and what `fit` takes to run it there."""
    root = import_module(name)
    lit = type("Lit", (Body, root.LightningModule), {})
    return SimpleNamespace(name=name, root=root, Lit=lit, run={"make": lit, "trainer_class": root.Trainer})
