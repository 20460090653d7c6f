"""Notices when explanations suddenly move more than they used to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from torch import Tensor

WINDOW = 10
"""Looks that say what is usual."""

LEAST = 5
"""Looks before which nothing is usual yet."""

DEVIATIONS = 3.0
"""Median absolute deviations below the median that are unusual (Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013)."""

LEAST_DEVIATION = 0.02
"""A run whose maps hardly move at all has a deviation of nothing."""

_NAMED = 3  # images


@dataclass
class DriftAlarm:
    """The similarities of the looks so far, by the name of what was compared.

    >>> alarm = DriftAlarm()
    >>> import torch
    >>> for mean in (0.9, 0.92, 0.91, 0.9, 0.93, 0.4, 0.3):
    ...     said = alarm.notice("maps", torch.tensor([mean + 0.05, mean - 0.05]))
    >>> said
    'agree to 0.30 now, after 0.40, where 0.91 was usual; least in image 1, 0'
    """

    seen: dict[str, list[float]] = field(default_factory=dict)

    def notice(self, name: str, values: Tensor) -> str:
        """Take in how far the maps of a look agree with others; in words, where that is unusual for the second time.

        Args:
            name: What is compared.
            values: ``(N,)`` similarities, NaN where there is none. (Waits for the device.)
        """
        each = values.tolist()
        there = [value for value in each if value == value]
        if not there:
            return ""
        history = self.seen.setdefault(name, [])
        mean = sum(there) / len(there)
        usual = history[:-1]
        history.append(mean)
        del history[: -WINDOW - 1]
        if len(usual) < LEAST:
            return ""
        middle = median(usual)
        allowed = middle - DEVIATIONS * max(median(abs(v - middle) for v in usual), LEAST_DEVIATION)
        if mean >= allowed or history[-2] >= allowed:
            return ""
        before = history[-2]
        history.clear()  # what is said once may become what is usual
        order = sorted((i for i, value in enumerate(each) if value == value), key=each.__getitem__)[:_NAMED]
        named = ", ".join(map(str, order))
        return f"agree to {mean:.2f} now, after {before:.2f}, where {middle:.2f} was usual; least in image {named}"

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"seen": {name: list(values) for name, values in self.seen.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.seen = {name: list(values) for name, values in state["seen"].items()}
