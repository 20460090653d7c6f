"""Whether explanations have moved: from what was kept to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from lightning_gradcam.baseline.data import BaselineData
from lightning_gradcam.baseline.profiles import (
    LEAST_IMAGES,
    LEAST_MARGIN,
    LEAST_SEEDS,
    PROFILES,
    QUANTILES,
    SHARES,
    Profile,
    format_quantile_name,
)
from lightning_gradcam.baseline.report import Finding, Report, Status, WorstImage
from lightning_gradcam.explainer.map_status import degenerate_share
from lightning_gradcam.render.side_by_side import draw_strips
from lightning_gradcam.stability import SIMILARITIES, similarity
from lightning_gradcam.stability.statistics import bootstrap_bounds
from lightning_gradcam.targets.logits import predictions

NEARLY = 2 / 255
"""Pixels that differ by no more were decoded otherwise; by more, they are other images."""

WORST = 5


def compare_baselines(
    baselines: Sequence[BaselineData],
    candidate: BaselineData,
    profile: str = "same-weights",
    thresholds: Mapping[str, float] | None = None,
) -> Report:
    """Compare a candidate's explanations with those that were kept.

    Args:
        baselines: One; of ``"retrain"`` at least five, of different trainings. The first is shown.
        candidate: The same of what is to be judged.
        profile: A name in `PROFILES`.
        thresholds: See `Profile.with_thresholds`.

    Raises:
        ValueError: There is no such profile or threshold.
    """
    chosen = PROFILES.resolve(profile).with_thresholds(thresholds)
    first, count = baselines[0], len(candidate)
    problem = next((p for b in baselines if (p := _hindrance(b, candidate))), "") or _too_few(baselines, chosen)
    if problem:
        return Report(
            "incompatible", problem, profile, chosen.metric, count, differences=_differences(first, candidate)
        )
    changed = _changed(first, candidate)
    findings = [_finding(key, chosen, baselines, candidate, changed) for key in first.explanation.evidence]
    order: list[Status] = ["regressed", "inconclusive", "pass"]
    decisive = min(findings, key=lambda finding: order.index(finding.status))
    images = first.images if first.images is not None else candidate.images
    rows = [w.index for w in findings[0].worst]
    return Report(
        status=decisive.status,
        reason=f"{decisive.key}: {decisive.reason}",
        profile=profile,
        metric=chosen.metric,
        images=count,
        findings=findings,
        noise=float("nan") if first.about.noise is None else first.about.noise,
        changed_predictions=changed,
        differences=_differences(first, candidate),
        warnings=_warnings(first, candidate, chosen, min(finding.count for finding in findings)),
        pictures={} if images is None else draw_strips(images, first.explanation, candidate.explanation, rows),
    )


def _hindrance(one: BaselineData, other: BaselineData) -> str:
    """Why two cannot be compared, in a sentence; empty where they can."""
    if len(one) != len(other):
        return f"The baseline explains {len(one)} images, the candidate {len(other)}."
    if one.about.methods != other.about.methods:
        methods = [", ".join(kept.about.methods) for kept in (one, other)]
        return f"The baseline's method is {methods[0]}, the candidate's {methods[1]}."
    mine, theirs = one.explanation, other.explanation
    if list(mine.evidence) != list(theirs.evidence):
        return f"The baseline explains {', '.join(mine.evidence)}, the candidate {', '.join(theirs.evidence)}."
    for key, evidence in mine.evidence.items():
        if evidence.shape != theirs.evidence[key].shape:
            sizes = ["×".join(map(str, e.shape[1:])) for e in (evidence, theirs.evidence[key])]
            return f"At {key!r} the baseline's maps are {sizes[0]}, the candidate's {sizes[1]}."
    if one.images is not None and other.images is not None:
        if one.images.shape != other.images.shape:
            return f"The baseline's images are {list(one.images.shape)}, the candidate's {list(other.images.shape)}."
        most = float((one.images - other.images).abs().max())
        if not most <= NEARLY + 1e-6:  # NaN is not
            return f"They explain different images: pixels differ by up to {most * 255:.0f}/255 before normalisation."
    elif one.about.probe != other.about.probe:
        return "They explain different images: their hashes differ, and not both hold the images to see by how much."
    if mine.classes is not None and theirs.classes is not None and not torch.equal(mine.classes, theirs.classes):
        share = float((mine.classes != theirs.classes).float().mean())
        return (
            f"They explain other classes in {share:.0%} of the images: record all with `like=` the same baseline, or "
            "with labels."
        )
    return ""


def _too_few(baselines: Sequence[BaselineData], profile: Profile) -> str:
    distinct = {b.about.weights for b in baselines}
    if profile.relative and len(distinct) < LEAST_SEEDS:
        return (
            f"The profile {profile.name!r} needs baselines of at least {LEAST_SEEDS} trainings, which show how far "
            f"trainings differ anyway, but got {len(distinct)} with different weights."
        )
    return ""


def _finding(
    key: str, profile: Profile, baselines: Sequence[BaselineData], candidate: BaselineData, changed: float
) -> Finding:
    maps = [b.explanation.maps[key] for b in baselines]
    own = candidate.explanation.maps[key]
    nearness = torch.stack([similarity(each, own, profile.metric) for each in maps]).nanmean(0)
    values, threshold = nearness, profile.threshold or 0.0
    if profile.relative:
        values, threshold = _behind(maps, own, profile)
    there = values[values.isfinite()]
    shares = tuple(float(degenerate_share(k.explanation.map_status[key])) for k in (baselines[0], candidate))
    others = {n: float(similarity(maps[0], own, n).nanmean()) for n in SIMILARITIES if n != profile.metric}
    quantiles = (
        {format_quantile_name(q): float(nearness[nearness.isfinite()].quantile(q)) for q in QUANTILES}
        if len(there)
        else {}
    )
    low, high = bootstrap_bounds(there) if len(there) else (float("nan"), float("nan"))
    measured = {**others, **quantiles, "changed_predictions": changed, "degenerate": shares[1]}
    status, reason = _judged(profile, low, high, threshold, len(there), measured)
    return Finding(
        key=key,
        status=status,
        reason=reason,
        mean=float(there.mean()) if len(there) else float("nan"),
        low=low,
        high=high,
        threshold=threshold,
        count=len(there),
        quantiles=quantiles,
        others=others,
        chance=float(similarity(maps[0], own.roll(1, 0), profile.metric).nanmean()),
        degenerate=(shares[0], shares[1]),
        worst=_worst(nearness, baselines[0], candidate),
    )


def _behind(maps: Sequence[Tensor], own: Tensor, profile: Profile) -> tuple[Tensor, float]:
    """Per image, how far a candidate is behind what the baselines are to one another, and how far it may be."""
    pairs = {(i, j): similarity(maps[i], maps[j], profile.metric) for i, j in combinations(range(len(maps)), 2)}

    def behind(to: Sequence[Tensor], among: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(to)).nanmean(0) - torch.stack(list(among)).nanmean(0)

    deficits = []
    for left_out in range(len(maps)):
        to = [pair for ends, pair in pairs.items() if left_out in ends]
        among = [pair for ends, pair in pairs.items() if left_out not in ends]
        deficits.append(-float(behind(to, among).nanmean()))
    margin = -profile.threshold if profile.threshold is not None else max([LEAST_MARGIN, *deficits])
    values = behind([similarity(each, own, profile.metric) for each in maps], list(pairs.values()))
    return values, -abs(margin)


def _judged(
    profile: Profile, low: float, high: float, threshold: float, count: int, measured: Mapping[str, float]
) -> tuple[Status, str]:
    for name, limit in (profile.limits or {}).items():
        most = name in (*SHARES, "center_shift")
        if not (measured[name] <= limit if most else measured[name] >= limit):
            return (
                "regressed",
                f"{name} is {measured[name]:.3f}, and {'at most' if most else 'at least'} {limit} is wanted",
            )
    if count < 2:
        return "inconclusive", f"{count} images have maps that can be compared"
    interval = f"the mean lies between {low:.3f} and {high:.3f}"
    if low >= threshold:
        return "pass", f"{interval}, and at least {threshold:.3f} is wanted"
    if high < threshold:
        return "regressed", f"{interval}, and at least {threshold:.3f} is wanted"
    return "inconclusive", f"{interval}, on both sides of {threshold:.3f}: more images tell"


def _worst(values: Tensor, baseline: BaselineData, candidate: BaselineData) -> list[WorstImage]:
    order = values.nan_to_num(torch.inf).argsort(stable=True)[:WORST].tolist()

    def predicted(kept: BaselineData, row: int) -> tuple[int, float] | None:
        if not kept.explanation.logits.shape[1]:
            return None
        sure, chosen = predictions(kept.explanation.logits[row : row + 1])
        return int(chosen), float(sure)

    labels = baseline.labels
    return [
        WorstImage(
            i,
            float(values[i]),
            None if labels is None else int(labels[i]),
            predicted(baseline, i),
            predicted(candidate, i),
        )
        for i in order
        if values[i].isfinite()
    ]


def _changed(baseline: BaselineData, candidate: BaselineData) -> float:
    before, after = baseline.explanation.logits, candidate.explanation.logits
    if before.shape != after.shape or not before.shape[1]:
        return float("nan")
    return float((predictions(before)[1] != predictions(after)[1]).float().mean())


def _differences(baseline: BaselineData, candidate: BaselineData) -> dict[str, tuple[str, str]]:
    """What differs in model, normalisation and surroundings."""

    def describe(kept: BaselineData) -> dict[str, str]:
        about = kept.about
        pixels = "none" if about.pixels is None else f"mean {list(about.pixels.mean)}, std {list(about.pixels.std)}"
        return {**about.surroundings, "normalisation": pixels, "weights": about.weights[:12], "target": about.target}

    one, other = describe(baseline), describe(candidate)
    names = dict.fromkeys([*one, *other])
    return {n: (one.get(n, "–"), other.get(n, "–")) for n in names if one.get(n) != other.get(n)}


def _warnings(baseline: BaselineData, candidate: BaselineData, profile: Profile, count: int) -> list[str]:
    found = []
    if count < LEAST_IMAGES:
        found.append(
            f"{count} images with an answer are few: intervals are too narrow under {LEAST_IMAGES}, and 128 are a good "
            "number."
        )
    if baseline.images is not None and candidate.images is not None:
        most = float((baseline.images - candidate.images).abs().max())
        if most > 1e-4:
            found.append(f"Pixels differ by up to {most * 255:.1f}/255, as of another decoder: they count as the same.")
    noise = baseline.about.noise or 0.0
    if profile.threshold is not None and not profile.relative and 1 - noise < profile.threshold:
        found.append(
            f"The baseline's own maps move by {noise:.3f} with the batch size, which is more than the threshold allows."
        )
    return found
