"""How far the command is: a bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from torch import nn
from tqdm import tqdm

from lightning_gradcam.probe.probe import Probe


class Progress:
    """A bar for what takes long.

    Args:
        what: Is done.
        total: How much of it there is, at most.
    """

    def __init__(self, what: str, total: int) -> None:
        self.total, self.done = total, 0
        self._bar = tqdm(desc=what, total=total, disable=not sys.stderr.isatty(), leave=False, delay=0.5, unit="img")

    def add(self, count: int) -> None:
        """So much more is done."""
        self._bar.update(min(count, self.total - self.done))
        self.done = min(self.done + count, self.total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()


@dataclass(frozen=True)
class CountedForward:
    """A forward pass that tells a bar how many images it has seen."""

    forward: Callable[[nn.Module, Probe], Any]
    progress: Progress

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """What the model returns."""
        self.progress.add(len(probe))
        return self.forward(model, probe)
