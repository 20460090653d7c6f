"""Rounds in which contestants take turns, so that ratios compare runs under the same conditions."""

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
    """What to measure.

    Args:
        device: The device of models and images.
        quick: Only check that everything runs: smallest cases, one round.
        patience: Factor on every time budget.
        rounds: The least number of rounds, whatever they take; 7 give a median a 95 % interval.
    """

    device: str = "cpu"
    quick: bool = False
    patience: float = 1.0
    rounds: int = 7

    def seconds(self, budget: float) -> float:
        """Scale a time budget, in seconds."""
        return 0.0 if self.quick else budget * self.patience

    def some(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Return the values of an axis: the first two in quick mode, else all."""
        return values[:2] if self.quick else values


def take_turns(runs: Mapping[str, Run], pace: str, options: Options, budget: float) -> Turns:
    """Time each contestant in rounds of random order, after a warm-up round.

    The speed of a machine changes from second to second, so only what runs close in time can be compared: the pace
    runs before and after each contestant, each time after an untimed run of its own.

    Args:
        runs: Contestants by name.
        pace: The name of the contestant that others are compared with.
        options: The device and the least number of rounds.
        budget: Seconds after which no further round starts.

    Returns:
        ``"milliseconds"`` per name and round, and ``"pace"``, the mean time of the pace before and after each. For the
        pace itself, both are its mean over the round.
    """
    own: dict[str, list[float]] = {name: [] for name in runs}
    paced: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffler = [name for name in runs if name != pace], random.Random(0)

    def turn() -> tuple[list[float], list[float]]:
        def set_pace() -> float:
            runs[pace]()  # untimed, so that every timed run finds caches and memory in the same state
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
                paced[name].append(mean(around))
            for times_by_name in (own, paced):
                times_by_name[pace].append(mean(paces))
    return {"milliseconds": own, "pace": paced}


@contextmanager
def undisturbed() -> Iterator[None]:
    """Exclude existing objects, mostly of libraries, from garbage collection inside the block."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def clocked(run: Run, device: str = "cpu") -> float:
    """Return the milliseconds of one call until the device is done; garbage is collected first."""
    gc.collect()
    wait(device)
    start = perf_counter()
    run()
    wait(device)
    return 1000 * (perf_counter() - start)


def wait(device: str) -> None:
    """Wait until the device has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
