"""An alarm for explanations that suddenly change more than they used to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from torch import Tensor

WINDOW = 10
"""The number of snapshots that define what is usual."""

LEAST = 5
"""The number of snapshots below which nothing is usual yet."""

DEVIATIONS = 3.0
"""Median absolute deviations below the median that are unusual (Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013)."""

LEAST_DEVIATION = 0.02
"""A lower limit of the deviation, for runs whose maps hardly change at all."""

_REPORTED_IMAGES = 3


@dataclass
class DriftAlarm:
    """The similarities of the snapshots so far, by a key for what was compared.

    >>> alarm = DriftAlarm()
    >>> import torch
    >>> for mean in (0.9, 0.92, 0.91, 0.9, 0.93, 0.4, 0.3):
    ...     finding = alarm.update("maps", torch.tensor([mean + 0.05, mean - 0.05]))
    >>> finding
    'mean similarity 0.30, after 0.40; the usual value is 0.91; least similar images: 1, 0'
    """

    history: dict[str, list[float]] = field(default_factory=dict)

    def update(self, key: str, similarities: Tensor) -> str:
        """Add the similarities of a snapshot, and describe them if they are unusual for the second time in a row.

        Args:
            key: A key for what is compared.
            similarities: ``(N,)``, NaN for images without one. (Waits for the device.)

        Returns:
            A description, or an empty string if nothing is unusual.
        """
        values = similarities.tolist()
        finite = [value for value in values if value == value]
        if not finite:
            return ""
        means = self.history.setdefault(key, [])
        mean = sum(finite) / len(finite)
        usual = means[:-1]
        means.append(mean)
        del means[: -WINDOW - 1]
        if len(usual) < LEAST:
            return ""
        center = median(usual)
        threshold = center - DEVIATIONS * max(median(abs(value - center) for value in usual), LEAST_DEVIATION)
        previous_mean = means[-2]
        if mean >= threshold or previous_mean >= threshold:
            return ""
        means.clear()  # after an alarm, the new values may become the usual ones
        order = sorted((i for i, value in enumerate(values) if value == value), key=values.__getitem__)
        images = ", ".join(map(str, order[:_REPORTED_IMAGES]))
        return (
            f"mean similarity {mean:.2f}, after {previous_mean:.2f}; the usual value is {center:.2f}; "
            f"least similar images: {images}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain values."""
        return {"seen": {key: list(means) for key, means in self.history.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.history = {key: list(means) for key, means in state["seen"].items()}
