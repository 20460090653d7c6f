"""Statistical comparison of a candidate's explanations with baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import nan

import torch
from torch import Tensor

from lightning_gradcam.baseline.compatibility import find_differences, find_incompatibility, measure_pixel_difference
from lightning_gradcam.baseline.data import BaselineData
from lightning_gradcam.baseline.profiles import (
    MIN_IMAGES,
    MIN_MARGIN,
    PROFILES,
    QUANTILES,
    RECOMMENDED_IMAGES,
    Profile,
    format_quantile_name,
)
from lightning_gradcam.baseline.report import Finding, Report, Status, WorstImage
from lightning_gradcam.baseline.verdict import MeanEstimate, judge
from lightning_gradcam.explainer.map_status import compute_degenerate_fraction
from lightning_gradcam.render.side_by_side import draw_strips
from lightning_gradcam.stability import SIMILARITIES, similarity
from lightning_gradcam.targets.logits import predictions

WORST = 5
"""Images with the least similar maps that a report lists."""


def compare_baselines(
    baselines: Sequence[BaselineData],
    candidate: BaselineData,
    profile: str = "same-weights",
    thresholds: Mapping[str, float] | None = None,
) -> Report:
    """Compare a candidate's explanations with those of baselines.

    Args:
        baselines: One baseline; for ``"retrain"`` at least five from different training runs. Figures show the first.
        candidate: Explanations of the same images by the model to assess.
        profile: A name in `PROFILES`.
        thresholds: See `Profile.with_thresholds`.

    Raises:
        ValueError: ``profile`` or ``thresholds`` is invalid.
    """
    criteria = PROFILES.resolve(profile).with_thresholds(thresholds)
    first, count = baselines[0], len(candidate)
    differences = find_differences(first, candidate)
    if problem := find_incompatibility(baselines, candidate, criteria):
        return Report("incompatible", problem, profile, criteria.metric, count, differences=differences)
    changed_predictions = _measure_changed_predictions(first, candidate)
    findings = [
        _assess_maps(key, criteria, baselines, candidate, changed_predictions) for key in first.explanation.evidence
    ]
    severity: list[Status] = ["regressed", "inconclusive", "pass"]
    decisive = min(findings, key=lambda finding: severity.index(finding.status))
    indices = [worst.index for worst in findings[0].worst]
    return Report(
        status=decisive.status,
        reason=f"{decisive.key}: {decisive.reason}",
        profile=profile,
        metric=criteria.metric,
        images=count,
        findings=findings,
        noise=nan if first.metadata.noise is None else first.metadata.noise,
        changed_predictions=changed_predictions,
        differences=differences,
        warnings=_list_warnings(first, candidate, criteria, min(finding.count for finding in findings)),
        # Not the candidate's images: a baseline without images promises that reports have none either.
        pictures={}
        if first.images is None
        else draw_strips(first.images, first.explanation, candidate.explanation, indices, first.metadata.bands),
    )


def _assess_maps(
    key: str,
    profile: Profile,
    baselines: Sequence[BaselineData],
    candidate: BaselineData,
    changed_predictions: float,
) -> Finding:
    """Assess the maps of one layer and method."""
    baseline_maps = [baseline.explanation.maps[key] for baseline in baselines]
    maps = candidate.explanation.maps[key]
    similarities = torch.stack([similarity(recorded, maps, profile.metric) for recorded in baseline_maps]).nanmean(0)
    if profile.relative:
        scores, threshold = _compare_with_seeds(similarities, baseline_maps, profile)
    else:
        scores, threshold = similarities, profile.threshold or 0.0
    estimate = MeanEstimate.from_scores(scores)
    quantiles = _compute_quantiles(similarities) if estimate.count else {}
    other_similarities = {
        metric: float(similarity(baseline_maps[0], maps, metric).nanmean())
        for metric in SIMILARITIES
        if metric != profile.metric
    }
    degenerate, candidate_degenerate = (
        float(compute_degenerate_fraction(data.explanation.map_status[key])) for data in (baselines[0], candidate)
    )
    measurements = {
        **other_similarities,
        **quantiles,
        "changed_predictions": changed_predictions,
        "degenerate": candidate_degenerate,
    }
    status, reason = judge(profile, estimate, threshold, measurements)
    return Finding(
        key=key,
        status=status,
        reason=reason,
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        threshold=threshold,
        count=estimate.count,
        quantiles=quantiles,
        others=other_similarities,
        chance=float(similarity(baseline_maps[0], maps.roll(1, 0), profile.metric).nanmean()),
        degenerate=(degenerate, candidate_degenerate),
        worst=_find_worst(similarities, baselines[0], candidate),
    )


def _compare_with_seeds(
    similarities: Tensor, baseline_maps: Sequence[Tensor], profile: Profile
) -> tuple[Tensor, float]:
    """Return the candidate's similarity relative to that among the baselines, and the lowest mean that passes.

    The margin is the deficit of the baseline that differs most from the others, and at least `MIN_MARGIN`.
    """
    seeds = range(len(baseline_maps))
    pairs = {(i, j): similarity(baseline_maps[i], baseline_maps[j], profile.metric) for i, j in combinations(seeds, 2)}
    deficits = []
    for seed in seeds:
        with_seed = [values for pair, values in pairs.items() if seed in pair]
        without_seed = [values for pair, values in pairs.items() if seed not in pair]
        deficits.append(float((_average(without_seed) - _average(with_seed)).nanmean()))
    margin = -profile.threshold if profile.threshold is not None else max([MIN_MARGIN, *deficits])
    return similarities - _average(list(pairs.values())), -abs(margin)


def _average(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).nanmean(0)


def _compute_quantiles(similarities: Tensor) -> dict[str, float]:
    finite = similarities[similarities.isfinite()]
    return {format_quantile_name(quantile): float(finite.quantile(quantile)) for quantile in QUANTILES}


def _find_worst(similarities: Tensor, baseline: BaselineData, candidate: BaselineData) -> list[WorstImage]:
    """Return the images with the least similar maps, the worst first."""
    order = similarities.nan_to_num(torch.inf).argsort(stable=True)[:WORST].tolist()
    labels = baseline.labels
    return [
        WorstImage(
            index,
            float(similarities[index]),
            None if labels is None else int(labels[index]),
            _find_prediction(baseline, index),
            _find_prediction(candidate, index),
        )
        for index in order
        if similarities[index].isfinite()
    ]


def _find_prediction(data: BaselineData, index: int) -> tuple[int, float] | None:
    """Return the predicted class of an image and its probability; None without logits."""
    if not data.explanation.logits.shape[1]:
        return None
    probability, predicted = predictions(data.explanation.logits[index : index + 1])
    return int(predicted), float(probability)


def _measure_changed_predictions(baseline: BaselineData, candidate: BaselineData) -> float:
    """Return the fraction of images whose predicted class differs; NaN if the numbers of logits differ or are zero."""
    logits, candidate_logits = baseline.explanation.logits, candidate.explanation.logits
    if logits.shape != candidate_logits.shape or not logits.shape[1]:
        return nan
    return float((predictions(logits)[1] != predictions(candidate_logits)[1]).float().mean())


def _list_warnings(baseline: BaselineData, candidate: BaselineData, profile: Profile, count: int) -> list[str]:
    warnings = []
    if count < MIN_IMAGES:
        warnings.append(
            f"Only {count} images have comparable maps. Confidence intervals are too narrow below {MIN_IMAGES} "
            f"images; {RECOMMENDED_IMAGES} are recommended."
        )
    if baseline.images is not None and candidate.images is not None:
        difference = measure_pixel_difference(baseline.images, candidate.images)
        if difference > 1e-4:
            warnings.append(
                f"Pixels differ by up to {difference * 255:.1f}/255, as with another image decoder; the images are "
                "treated as the same."
            )
    noise = baseline.metadata.noise or 0.0
    if profile.threshold is not None and not profile.relative and 1 - noise < profile.threshold:
        warnings.append(
            f"The baseline's own maps change by {noise:.3f} with the batch size, which is more than the threshold "
            "allows."
        )
    return warnings
