"""Golden explanations: record, compare, report and check them in tests.

Names are imported on first use, because the pytest plugin imports from this package and must not load PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gradcam.baseline.baseline import Baseline
    from lightning_gradcam.baseline.report import EXIT_CODES, Finding, Report, Status, WorstImage

_MODULES = {
    "Baseline": "baseline",
    **dict.fromkeys(("EXIT_CODES", "Finding", "Report", "Status", "WorstImage"), "report"),
}

__all__ = ["EXIT_CODES", "Baseline", "Finding", "Report", "Status", "WorstImage"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
