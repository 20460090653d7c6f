"""Profiles: the purposes of a comparison, with their thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lightning_gradcam.stability import SIMILARITIES
from lightning_gradcam.utils.registry import Registry

RECOMMENDED_IMAGES = 128
"""From here on, bounds of the mean hold about as often as stated, see ``docs/regression.md``."""

MIN_IMAGES = 64
"""With fewer, intervals of a mean are too narrow: at 16 images a nominal 95 % covers about 92 %."""

MIN_SEEDS = 5
"""Training runs needed to measure how much training runs differ."""

MIN_MARGIN = 0.05
"""Deficit that a new training run may always have relative to the others."""

FRACTIONS = ("changed_predictions", "degenerate")
UPPER_LIMITS = (*FRACTIONS, "center_shift")
"""Measurements with an upper limit; all others have a lower one."""
QUANTILES = (0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Profile:
    """The purpose of a comparison.

    Args:
        name: Name of the profile.
        purpose: What the comparison is for.
        threshold: The lowest mean similarity that passes; None if it is computed from the baselines (``relative``).
        metric: The similarity whose mean decides.
        relative: Whether the candidate's similarity is measured relative to that among several baselines.
        limits: Further thresholds, all set by the user: lower limits of the means of other similarities and of the
            quantiles ``"q05"``, ``"q10"``, ``"q25"`` and ``"q50"``; upper limits of the fractions
            ``"changed_predictions"`` and ``"degenerate"``, and of ``"center_shift"``.
    """

    name: str
    purpose: str
    threshold: float | None
    metric: str = "spearman"
    relative: bool = False
    limits: Mapping[str, float] | None = None

    def with_thresholds(self, thresholds: Mapping[str, float] | None) -> Profile:
        """Return the profile with the user's thresholds; ``"mean"`` is the one of the metric.

        Raises:
            ValueError: A threshold has an unknown name.
        """
        thresholds = dict(thresholds or {})
        names = [*FRACTIONS, *map(format_quantile_name, QUANTILES), *(n for n in SIMILARITIES if n != self.metric)]
        unknown = [name for name in thresholds if name not in ("mean", self.metric, *names)]
        if unknown:
            raise ValueError(
                f"Expected the names of `thresholds` to be among mean, {', '.join(names)}, but got {unknown[0]!r}."
            )
        threshold = thresholds.pop("mean", thresholds.pop(self.metric, self.threshold))
        return replace(self, threshold=threshold, limits={**(self.limits or {}), **thresholds})


def format_quantile_name(quantile: float) -> str:
    """Return the name of a quantile's threshold.

    >>> format_quantile_name(0.05)
    'q05'
    """
    return f"q{round(100 * quantile):02d}"


PROFILES = Registry[Profile]("profile")
"""Profiles by name."""

PROFILES["same-weights"] = Profile(
    "same-weights", "the same weights: exported, refactored, or run with upgraded libraries", 0.99
)
PROFILES["next-checkpoint"] = Profile(
    "next-checkpoint", "the same training run, fine-tuned or a few epochs later", 0.80
)
PROFILES["retrain"] = Profile(
    "retrain", "another training run, relative to how much training runs differ", None, relative=True
)
