"""Contestants take turns, so that a ratio compares what ran under the same conditions."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Options:
    """How much is measured, and where.

    Args:
        device: Of models and images.
        quick: Only that everything runs: smallest cases, one round.
        patience: Every time budget is multiplied by this.
        rounds: So many count at least, whatever they take; 7 give a median an interval of 95 %.
    """

    device: str = "cpu"
    quick: bool = False
    patience: float = 1.0
    rounds: int = 7

    def seconds(self, budget: float) -> float:
        """A time budget as these options have it."""
        return 0.0 if self.quick else budget * self.patience

    def some(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """The values of an axis: in a hurry, the first two."""
        return values[:2] if self.quick else values


def take_turns(runs: Mapping[str, Run], options: Options, budget: float) -> dict[str, list[float]]:
    """Milliseconds of each contestant, round by round, in an order shuffled anew; first a round that does not count.

    Args:
        runs: By name.
        options: Where, and how many at least.
        budget: Seconds after which no further round begins.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffler = list(runs), random.Random(0)
    start = perf_counter()
    for turn in range(10_000):
        if turn > (1 if options.quick else options.rounds) and perf_counter() - start > options.seconds(budget):
            break
        shuffler.shuffle(order)
        for name in order:
            elapsed = clocked(runs[name], options.device)
            if turn > 0:
                found[name].append(elapsed)
    return found


def clocked(run: Run, device: str = "cpu") -> float:
    """Milliseconds of one call, until the device is done; garbage is collected before."""
    gc.collect()
    wait(device)
    start = perf_counter()
    run()
    wait(device)
    return 1000 * (perf_counter() - start)


def wait(device: str) -> None:
    """Until what was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
