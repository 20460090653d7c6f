"""Base classes for both of Lightning's packages: ours inherit from the classes of `lightning` and `pytorch_lightning`.

Each package has classes of its own, and an object passes `isinstance` only for the package that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lightning_fabric.utilities.exceptions import MisconfigurationException as Misconfiguration
from pytorch_lightning import Callback


def _get_bases(base: type, module: str) -> tuple[type, ...]:
    """Return a class of `pytorch_lightning`, and its namesake in `lightning` if that is installed."""
    if find_spec("lightning") is not None:
        with suppress(ImportError, AttributeError):  # another package may be called lightning
            return base, getattr(import_module(f"lightning.{module}"), base.__name__)
    return (base,)


if TYPE_CHECKING:
    AnyCallback = Callback
    MisconfigurationException = Misconfiguration
else:
    AnyCallback = type("AnyCallback", _get_bases(Callback, "pytorch"), {})
    MisconfigurationException = type(
        "MisconfigurationException", _get_bases(Misconfiguration, "fabric.utilities.exceptions"), {}
    )


@contextmanager
def raise_misconfiguration() -> Iterator[None]:
    """Raise what the user can fix as Lightning's own error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"GradCAMCallback: {error}") from error
