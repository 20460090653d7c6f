"""Lightning comes in two packages, each with classes of its own; ours inherit from both, and so pass for either's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lightning_fabric.utilities.exceptions import MisconfigurationException as Misconfiguration
from pytorch_lightning import Callback


def _with_twin(ours: type, module: str) -> tuple[type, ...]:
    """A class of `pytorch_lightning` and the one of the same name in `lightning`, where that is installed."""
    if find_spec("lightning") is not None:
        with suppress(ImportError, AttributeError):  # another package of that name
            return ours, getattr(import_module(f"lightning.{module}"), ours.__name__)
    return (ours,)


if TYPE_CHECKING:
    AnyCallback = Callback
    MisconfigurationException = Misconfiguration
else:
    AnyCallback = type("AnyCallback", _with_twin(Callback, "pytorch"), {})
    MisconfigurationException = type(
        "MisconfigurationException", _with_twin(Misconfiguration, "fabric.utilities.exceptions"), {}
    )


@contextmanager
def raise_misconfiguration() -> Iterator[None]:
    """Lightning's own error for what the user can mend."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"GradCAMCallback: {error}") from error
