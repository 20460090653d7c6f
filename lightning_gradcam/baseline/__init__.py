"""Golden explanations: recorded, compared, reported, pinned in tests.

Names are imported when they are first used: the pytest plugin imports from here and loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gradcam.baseline.baseline import Baseline
    from lightning_gradcam.baseline.report import EXIT_CODES, Finding, Report, Status, WorstImage

_HOMES = {
    "Baseline": "baseline",
    **dict.fromkeys(("EXIT_CODES", "Finding", "Report", "Status", "WorstImage"), "report"),
}

__all__ = ["EXIT_CODES", "Baseline", "Finding", "Report", "Status", "WorstImage"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
