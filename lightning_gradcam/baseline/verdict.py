"""The verdict on a layer's maps: a mean with its bounds, judged by the thresholds of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Self

from torch import Tensor

from lightning_gradcam.baseline.profiles import UPPER_LIMITS, Profile
from lightning_gradcam.baseline.report import Status
from lightning_gradcam.baseline.text import format_number
from lightning_gradcam.stability.statistics import bootstrap_bounds


@dataclass(frozen=True)
class MeanEstimate:
    """Mean of a score over images, with its one-sided 95 % bounds; all NaN if no image has a score.

    >>> from torch import tensor
    >>> MeanEstimate.from_scores(tensor([1.0, 1.0, nan]))
    MeanEstimate(mean=1.0, low=1.0, high=1.0, count=2)
    """

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def from_scores(cls, scores: Tensor) -> Self:
        """Estimate the mean of ``(N,)`` scores, leaving out those that are not finite."""
        finite = scores[scores.isfinite()]
        if not len(finite):
            return cls(nan, nan, nan, 0)
        return cls(float(finite.mean()), *bootstrap_bounds(finite), len(finite))


def judge(
    profile: Profile, estimate: MeanEstimate, threshold: float, measurements: Mapping[str, float]
) -> tuple[Status, str]:
    """Return the status of maps and the reason for it.

    Args:
        profile: Its ``limits`` are checked first.
        estimate: Mean similarity and its bounds.
        threshold: The lowest mean that passes.
        measurements: Values by the names of limits.
    """
    for name, limit in (profile.limits or {}).items():
        is_maximum = name in UPPER_LIMITS
        if not estimate.count and not isfinite(measurements.get(name, nan)):
            continue  # nothing to measure, which is inconclusive
        if not (measurements[name] <= limit if is_maximum else measurements[name] >= limit):
            bound = "at most" if is_maximum else "at least"
            return "regressed", f"{name} is {measurements[name]:.3f}, but must be {bound} {limit}"
    if estimate.count < 2:
        return "inconclusive", f"{estimate.count} of the images have comparable maps, but at least 2 are required"
    subject = "the mean similarity relative to other training runs" if profile.relative else "the mean similarity"
    low, high = format_number(estimate.low), format_number(estimate.high)
    interval = f"{subject} is {low}" if low == high else f"{subject} is between {low} and {high}"
    if estimate.low >= threshold:
        return "pass", f"{interval}; at least {threshold:.3f} is required"
    if estimate.high < threshold:
        return "regressed", f"{interval}, but must be at least {threshold:.3f}"
    return "inconclusive", f"{interval}, which includes the threshold {threshold:.3f}; use more images to decide"
