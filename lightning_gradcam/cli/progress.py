"""A progress bar on terminals; nothing is written to other outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from torch import nn
from tqdm import tqdm

from lightning_gradcam.capture.forward import default_forward, find_forward
from lightning_gradcam.probe.probe import Probe


class Progress:
    """A progress bar that counts images.

    Args:
        description: Description of the work.
        total: Number of images, at most.
    """

    def __init__(self, description: str, total: int) -> None:
        self.total, self.done = total, 0
        hidden = not sys.stderr.isatty()
        self._bar = tqdm(desc=description, total=total, disable=hidden, leave=False, delay=0.5, unit="img")

    def add(self, count: int) -> None:
        """Advance the bar, at most to its total."""
        self._bar.update(min(count, self.total - self.done))
        self.done = min(self.done + count, self.total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


@dataclass(frozen=True)
class CountedForward:
    """A forward pass that advances a progress bar by the images it processes."""

    forward: Callable[[nn.Module, Probe], Any]
    progress: Progress

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """Return the model's output."""
        self.progress.add(len(probe))
        return self.forward(model, probe)


@contextmanager
def show_forward_progress(model: nn.Module, total: int) -> Iterator[CountedForward]:
    """Show a progress bar, and yield the model's forward pass, which advances it.

    Args:
        model: The model that is explained.
        total: Number of images in all forward passes, at most.
    """
    with Progress("explaining", total) as progress:
        yield CountedForward(find_forward(model) or default_forward(model), progress)
