"""When looks are due, and what share of the time they take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter


@dataclass
class Pace:
    """The rhythm of the looks of one run.

    Args:
        every_n_epochs: Looks are made in every n-th epoch from the first one on, and in the last.
        max_overhead: The share of the time that looks may take, in (0, 1); None for any.
        first_epoch: In which the first look was made.
    """

    every_n_epochs: int = 1
    max_overhead: float | None = None
    first_epoch: int | None = None
    share: float | None = None
    _seconds: float = 0.0
    _ended: float | None = None
    _epoch: int | None = None
    _wait: int = 0

    def due(self, epoch: int, last: bool) -> bool:
        """Whether an epoch is to be looked at; the first one that is asked for sets the beat."""
        self.first_epoch = epoch if self.first_epoch is None else self.first_epoch
        if last:
            return True
        in_time = self._epoch is None or epoch - self._epoch >= self._wait
        return in_time and (epoch - self.first_epoch) % self.every_n_epochs == 0

    @contextmanager
    def clocked(self, epoch: int) -> Iterator[None]:
        """Around a look: how long it takes beside what passed since the one before."""
        start = perf_counter()
        yield
        end = perf_counter()
        self._seconds = end - start
        if self._ended is not None:
            self.share = self._seconds / (end - self._ended)
            if self.max_overhead is not None and self._epoch is not None:
                self._wait = self._epochs_needed((start - self._ended) / max(epoch - self._epoch, 1))
        self._ended, self._epoch = end, epoch

    def _epochs_needed(self, seconds: float) -> int:
        """How many epochs of ``seconds`` have to pass for a look to take no more than its share."""
        assert self.max_overhead is not None
        return max(1, math.ceil(self._seconds * (1 / self.max_overhead - 1) / max(seconds, 1e-9)))

    @property
    def note(self) -> str:
        """A sentence where looks take more than their share, else empty."""
        if self.max_overhead is None or self._wait <= self.every_n_epochs:
            return ""
        return (
            f"A look in every epoch takes more than the share of {self.max_overhead:.0%} that `max_overhead` allows "
            f"({self._seconds:.2g} s each): looks are made less often from here on, when depends on the clock."
        )
