"""Lightning comes in two packages, each with a Callback of its own."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pytorch_lightning import Callback


def _callback_classes() -> tuple[type, ...]:
    classes: list[type] = [Callback]
    if find_spec("lightning") is not None:
        with suppress(ImportError, AttributeError):  # another package of that name
            classes.append(import_module("lightning.pytorch").Callback)
    return tuple(classes)


if TYPE_CHECKING:
    AnyCallback = Callback
else:  # who inherits from it is served by both Trainers
    AnyCallback = type("AnyCallback", _callback_classes(), {})
