"""The schedule of the snapshots, and the fraction of the time that they take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch


@dataclass
class SnapshotSchedule:
    """The schedule of one run.

    A resumed run continues the schedule of epochs only; the overhead of its first snapshot is not known.

    Args:
        every_n_epochs: Snapshots are taken in every n-th epoch from the first one on, and in the last.
        max_overhead: The fraction of the time that snapshots may take, in (0, 1); None for any.
        first_epoch: The epoch of the first snapshot.
        overhead: The fraction of the time since the previous snapshot that the latest one took; None until there are
            two.
        was_postponed: Whether a snapshot was skipped because of ``max_overhead``.
    """

    every_n_epochs: int = 1
    max_overhead: float | None = None
    first_epoch: int | None = None
    overhead: float | None = None
    was_postponed: bool = False
    _seconds: float = 0.0
    _ended_at: float | None = None

    def is_due(self, epoch: int, is_last: bool) -> bool:
        """Return whether an epoch needs a snapshot; the first epoch of a run is the start of the schedule."""
        self.first_epoch = epoch if self.first_epoch is None else self.first_epoch
        if is_last:
            return True
        if (epoch - self.first_epoch) % self.every_n_epochs != 0:
            return False
        if self._is_too_early():
            self.was_postponed = True
            return False
        return True

    def _is_too_early(self) -> bool:
        if self.max_overhead is None or self._ended_at is None:
            return False
        required = self._seconds * (1 / self.max_overhead - 1)
        return perf_counter() - self._ended_at < required * (1 - 1e-9)

    @contextmanager
    def measure_time(self, device: torch.device) -> Iterator[None]:
        """Measure a snapshot on a device, relative to the time since the previous one."""
        start, start_event = perf_counter(), _record_event(device)
        yield
        end, end_event = perf_counter(), _record_event(device)
        self._seconds = end - start
        if start_event is not None and end_event is not None:  # training steps may still have been in the queue
            end_event.synchronize()
            self._seconds = start_event.elapsed_time(end_event) / 1000
        if self._ended_at is not None:
            self.overhead = self._seconds / (end - self._ended_at)
        self._ended_at = end

    @property
    def warning(self) -> str:
        """A message if a snapshot was postponed, else empty."""
        if not self.was_postponed:
            return ""
        return (
            f"Snapshots every {self.every_n_epochs} epochs would take more than the {self.max_overhead:.0%} of the "
            f"time that `max_overhead` allows ({self._seconds:.2g} s each), so fewer are taken. When they are taken "
            "depends on the clock."
        )


def _record_event(device: torch.device) -> torch.cuda.Event | None:
    """Record an event in a CUDA device's queue; return None for other devices, whose work is synchronous."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # PyTorch's has no types
    event.record(torch.cuda.current_stream(device))
    return event
