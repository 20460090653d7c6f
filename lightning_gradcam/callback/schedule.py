"""When looks are due, and what share of the time they take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch


@dataclass
class SnapshotSchedule:
    """The rhythm of the looks of one run; of a resumed one, only the beat goes on, and its first look has no share.

    Args:
        every_n_epochs: Looks are made in every n-th epoch from the first one on, and in the last.
        max_overhead: The share of the time that looks may take, in (0, 1); None for any.
        first_epoch: In which the first look was made.
        share: Of the latest look, in the time since the one before; None until there are two.
        put_off: Whether a look has had to wait.
    """

    every_n_epochs: int = 1
    max_overhead: float | None = None
    first_epoch: int | None = None
    share: float | None = None
    put_off: bool = False
    _seconds: float = 0.0
    _ended: float | None = None

    def due(self, epoch: int, last: bool) -> bool:
        """Whether an epoch is to be looked at; the first one that is asked for sets the beat."""
        self.first_epoch = epoch if self.first_epoch is None else self.first_epoch
        if last:
            return True
        if (epoch - self.first_epoch) % self.every_n_epochs != 0:
            return False
        if self._too_early():
            self.put_off = True
            return False
        return True

    def _too_early(self) -> bool:
        if self.max_overhead is None or self._ended is None:
            return False
        needed = self._seconds * (1 / self.max_overhead - 1)
        return perf_counter() - self._ended < needed * (1 - 1e-9)

    @contextmanager
    def clocked(self, device: torch.device) -> Iterator[None]:
        """Around a look on that device: how long it takes beside what passed since the one before."""
        start, reached = perf_counter(), _mark(device)
        yield
        end, done = perf_counter(), _mark(device)
        self._seconds = end - start
        if reached is not None and done is not None:  # steps of training may have been waiting for the device
            done.synchronize()
            self._seconds = reached.elapsed_time(done) / 1000
        if self._ended is not None:
            self.share = self._seconds / (end - self._ended)
        self._ended = end

    @property
    def note(self) -> str:
        """A sentence where a look was put off, else empty."""
        if not self.put_off:
            return ""
        return (
            f"Looks would take more than the share of {self.max_overhead:.0%} that `max_overhead` allows "
            f"({self._seconds:.2g} s each), so they are made less often; when depends on the clock."
        )


def _mark(device: torch.device) -> torch.cuda.Event | None:
    """When a CUDA device gets as far as this; None for others, which are asked for nothing ahead of time."""
    if device.type != "cuda":
        return None
    mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # PyTorch's has no types
    mark.record(torch.cuda.current_stream(device))
    return mark
