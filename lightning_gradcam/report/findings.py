"""What a comparison found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from torch import Tensor

Status: TypeAlias = Literal["pass", "regressed", "inconclusive", "incompatible"]

EXIT_CODES: Mapping[Status, int] = {"pass": 0, "regressed": 1, "inconclusive": 3, "incompatible": 4}
"""Of the command line; 2 is a wrong call."""


@dataclass(frozen=True)
class Worst:
    """One of the images whose explanation moved most.

    Args:
        index: Its row in the probe.
        similarity: Of its maps.
        label: Its label, where there is one.
        before: The class that the baseline's model predicted, and its probability.
        after: The same for the candidate.
    """

    index: int
    similarity: float
    label: int | None
    before: tuple[int, float] | None
    after: tuple[int, float] | None


@dataclass(frozen=True)
class Finding:
    """What was found at one layer, by one method.

    Args:
        key: The layer, or ``"layer/method"``.
        status: Pass, regressed or inconclusive.
        reason: Why, in words.
        mean: Of the metric over the images that have an answer; with several baselines, how far behind them.
        low: One-sided 95 % lower bound of the mean.
        high: One-sided 95 % upper bound.
        threshold: What the mean has to reach.
        count: How many images the mean rests on.
        quantiles: Of the metric, by name.
        others: Means of the other similarities.
        chance: The mean similarity to another image's map.
        degenerate: Share of maps that cannot be read, of the baseline and of the candidate.
        worst: Images whose explanation moved most, the worst first.
    """

    key: str
    status: Status
    reason: str
    mean: float
    low: float
    high: float
    threshold: float
    count: int
    quantiles: Mapping[str, float]
    others: Mapping[str, float]
    chance: float
    degenerate: tuple[float, float]
    worst: Sequence[Worst]


@dataclass(frozen=True)
class Report:
    """Whether explanations are still what they were, with the evidence.

    Args:
        status: The worst of the findings': ``"pass"``, ``"regressed"``, ``"inconclusive"`` or ``"incompatible"``.
        reason: Why, in a sentence.
        profile: What the comparison was for.
        metric: Whose mean decided.
        images: How many were compared.
        findings: One per layer and method; none where baseline and candidate are incompatible.
        noise: How far the baseline's own maps move with the batch size, 1 - the mean rank correlation.
        changed_predictions: Share of images that the candidate gives another class.
        differences: What differs between the two, by name: the baseline's and the candidate's.
        warnings: What makes the result less sure.
        pictures: For each of the worst images of the first finding, ``(3, h, w)`` uint8: the image, and the evidence of
            baseline and candidate, and their difference; none where the images were not kept.
    """

    status: Status
    reason: str
    profile: str
    metric: str
    images: int
    findings: Sequence[Finding] = ()
    noise: float = float("nan")
    changed_predictions: float = float("nan")
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    pictures: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the explanations are still what they were, as far as can be told."""
        return self.status == "pass"

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return EXIT_CODES[self.status]

    def facts(self) -> dict[str, Any]:
        """Everything but the pictures, in plain values."""
        return {name: value for name, value in asdict(replace(self, pictures={})).items() if name != "pictures"}

    def text(self) -> str:
        """For a terminal."""
        from lightning_gradcam.report.text import as_text

        return as_text(self)

    def markdown(self) -> str:
        """For a comment on a pull request."""
        from lightning_gradcam.report.text import as_markdown

        return as_markdown(self)

    def json(self) -> str:
        """For machines."""
        from lightning_gradcam.report.text import as_json

        return as_json(self)

    def html(self) -> str:
        """One page that holds its pictures, baseline, candidate and difference side by side."""
        from lightning_gradcam.report.html import as_html

        return as_html(self)
