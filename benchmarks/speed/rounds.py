"""Contestants take turns, so that a ratio compares what ran under the same conditions."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from time import perf_counter
from typing import TypeAlias

import torch

Run: TypeAlias = Callable[[], object]
Turns: TypeAlias = dict[str, dict[str, list[float]]]


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


def take_turns(runs: Mapping[str, Run], pace: str, options: Options, budget: float) -> Turns:
    """Milliseconds of each contestant, round by round, in an order shuffled anew; first a round that does not count.

    A machine's speed changes from second to second, so that only what ran side by side can be compared: the pace is
    called before and after each of the others, always after another one of its own.

    Args:
        runs: By name.
        pace: The name of the one that others are compared with.
        options: Where, and how many at least.
        budget: Seconds after which no further round begins.

    Returns:
        ``"milliseconds"`` per name and round, and as ``"beside"``, the mean of the pace's before and after. The pace's
        own are the mean of the round.
    """
    own: dict[str, list[float]] = {name: [] for name in runs}
    beside: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffler = [name for name in runs if name != pace], random.Random(0)

    def turn() -> tuple[list[float], list[float]]:
        def set_pace() -> float:
            runs[pace]()  # so that everyone comes after one, and finds the memory as it leaves it
            return clocked(runs[pace], options.device)

        shuffler.shuffle(order)
        paces, times = [set_pace()], []
        for name in order:
            times.append(clocked(runs[name], options.device))
            paces.append(set_pace())
        return times, paces

    turn()
    start = perf_counter()
    with undisturbed():
        while len(own[pace]) < (1 if options.quick else options.rounds) or (
            perf_counter() - start < options.seconds(budget)
        ):
            times, paces = turn()
            for name, elapsed, around in zip(order, times, pairwise(paces), strict=True):
                own[name].append(elapsed)
                beside[name].append(mean(around))
            for found in (own, beside):
                found[pace].append(mean(paces))
    return {"milliseconds": own, "beside": beside}


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, to collect garbage passes by what is there already: libraries, above all."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
