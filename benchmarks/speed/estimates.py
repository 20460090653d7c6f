"""Medians, ratios and slopes, with their intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

_DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    >>> str(Estimate(1.0, 0.954, 1.052))
    '1.00 (0.95–1.05)'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def estimated(values: Sequence[float]) -> Estimate:
    """Return the median with its distribution-free 95 % interval, from order statistics.

    For up to six values, the interval is from the smallest to the largest and holds less than 95 %.

    >>> estimated([3.0, 1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    Estimate(value=5.0, low=2.0, high=8.0)
    """
    ordered, count = sorted(values), len(values)
    outside = 0
    while 2 * sum(math.comb(count, i) for i in range(outside + 2)) <= 0.05 * 2**count:
        outside += 1
    return Estimate(median(ordered), ordered[outside], ordered[-1 - outside])


def ratio(own: Sequence[float], other: Sequence[float]) -> Estimate:
    """Return the median ratio of two contestants within each round."""
    return estimated([a / b for a, b in zip(own, other, strict=True)])


def compared(turns: Mapping[str, Mapping[str, Sequence[float]]], own: str, other: str) -> Estimate:
    """Return the median ratio of two contestants, each divided by its pace; see `rounds.take_turns`.

    >>> str(compared({"milliseconds": {"a": [3.0], "b": [4.0]}, "pace": {"a": [1.0], "b": [2.0]}}, "a", "b"))
    '1.50 (1.50–1.50)'
    """
    shares = [
        [time / pace for time, pace in zip(turns["milliseconds"][name], turns["pace"][name], strict=True)]
        for name in (own, other)
    ]
    return ratio(*shares)


def slope(rounds: Mapping[float, Sequence[float]], *, logarithmic: bool) -> Estimate:
    """Return the slope of a line through the medians, with an interval from 1,000 bootstrap draws of the rounds.

    Args:
        rounds: Values by size.
        logarithmic: Take the logarithm of both: 1 is proportional, 0 is flat.

    >>> str(slope({1: [2.0, 2.0], 2: [4.0, 4.0], 4: [8.0, 8.0]}, logarithmic=True))
    '1.00 (1.00–1.00)'
    """
    scale = math.log if logarithmic else float
    at = [scale(x) for x in rounds]
    chance = random.Random(0)

    def fitted(columns: Sequence[Sequence[float]]) -> float:
        values = [scale(median(column)) for column in columns]
        middle = sum(at) / len(at)
        return sum((x - middle) * y for x, y in zip(at, values, strict=True)) / sum((x - middle) ** 2 for x in at)

    drawn = sorted(fitted([chance.choices(v, k=len(v)) for v in rounds.values()]) for _ in range(_DRAWS))
    return Estimate(fitted(list(rounds.values())), drawn[_DRAWS // 40], drawn[-1 - _DRAWS // 40])
