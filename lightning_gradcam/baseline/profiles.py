"""What a comparison is for, and so what counts as moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lightning_gradcam.stability import SIMILARITIES
from lightning_gradcam.utils.registry import Registry

LEAST_IMAGES = 64
"""With fewer, intervals of a mean are too narrow: at 16 images a nominal 95 % covers about 92 %."""

LEAST_SEEDS = 5
"""Trainings that show how far trainings differ anyway."""

LEAST_MARGIN = 0.05
"""How far a new training may fall behind the others in any case."""

SHARES = ("changed_predictions", "degenerate")
QUANTILES = (0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Profile:
    """A purpose of comparing.

    Args:
        name: Of the profile.
        about: What it is for, in words.
        threshold: The least mean similarity; of ``relative`` profiles found from the baselines.
        metric: The similarity whose mean decides.
        relative: Whether the candidate is measured by how much several baselines differ among themselves.
        limits: Further thresholds, all set by the user: least means of other similarities, least quantiles (``"q05"``,
            ``"q10"``, ``"q25"``, ``"q50"``), most of the shares ``"changed_predictions"`` and ``"degenerate"``, and
            most of ``"center_shift"``.
    """

    name: str
    about: str
    threshold: float | None
    metric: str = "spearman"
    relative: bool = False
    limits: Mapping[str, float] | None = None

    def with_thresholds(self, thresholds: Mapping[str, float] | None) -> Profile:
        """The same with thresholds of the user's; ``"mean"`` is that of the metric.

        Raises:
            ValueError: There is no such threshold.
        """
        given = dict(thresholds or {})
        known = [*SHARES, *map(format_quantile_name, QUANTILES), *(n for n in SIMILARITIES if n != self.metric)]
        wrong = [name for name in given if name not in ("mean", self.metric, *known)]
        if wrong:
            raise ValueError(f"Expected thresholds named mean, {', '.join(known)}, but got {wrong[0]!r}.")
        threshold = given.pop("mean", given.pop(self.metric, self.threshold))
        return replace(self, threshold=threshold, limits={**(self.limits or {}), **given})


def format_quantile_name(quantile: float) -> str:
    """How thresholds name a quantile.

    >>> format_quantile_name(0.05)
    'q05'
    """
    return f"q{round(100 * quantile):02d}"


PROFILES = Registry[Profile]("profile")
"""Purposes by name."""

PROFILES["same-weights"] = Profile(
    "same-weights", "the same weights: exported, refactored, under upgraded libraries", 0.99
)
PROFILES["next-checkpoint"] = Profile("next-checkpoint", "the same training, fine-tuned or some epochs on", 0.80)
PROFILES["retrain"] = Profile(
    "retrain", "another training run, beside how far training runs differ", None, relative=True
)
