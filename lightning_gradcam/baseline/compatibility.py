"""Checks that two baselines can be compared, and the differences between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gradcam.baseline.data import BaselineData
from lightning_gradcam.baseline.profiles import MIN_SEEDS, Profile

PIXEL_TOLERANCE = 2 / 255
"""Largest difference that another image decoder explains; images that differ by more are other images."""


def find_incompatibility(baselines: Sequence[BaselineData], candidate: BaselineData, profile: Profile) -> str:
    """Return the reason why a candidate cannot be compared with the baselines, as a sentence; empty if it can."""
    reasons = (_find_mismatch(baseline, candidate) for baseline in baselines)
    return next(filter(None, reasons), "") or _find_missing_seeds(baselines, profile)


def find_differences(baseline: BaselineData, candidate: BaselineData) -> dict[str, tuple[str, str]]:
    """Return model, normalization and environment of the baseline and the candidate where they differ, by name."""
    values, candidate_values = _list_properties(baseline), _list_properties(candidate)
    names = dict.fromkeys([*values, *candidate_values])
    return {
        name: (values.get(name, "–"), candidate_values.get(name, "–"))
        for name in names
        if values.get(name) != candidate_values.get(name)
    }


def measure_pixel_difference(images: Tensor, candidate_images: Tensor) -> float:
    """Return the largest absolute difference of two batches of pixels; NaN if either contains NaN."""
    return float((images - candidate_images).abs().max())


def _find_mismatch(baseline: BaselineData, candidate: BaselineData) -> str:
    if len(baseline) != len(candidate):
        return f"The baseline contains {len(baseline)} images, but the candidate contains {len(candidate)}."
    return (
        _find_map_mismatch(baseline, candidate)
        or _find_image_mismatch(baseline, candidate)
        or _find_class_mismatch(baseline, candidate)
    )


def _find_map_mismatch(baseline: BaselineData, candidate: BaselineData) -> str:
    methods, candidate_methods = baseline.metadata.methods, candidate.metadata.methods
    if methods != candidate_methods:
        return (
            f"The baseline uses the method {', '.join(methods)}, but the candidate uses {', '.join(candidate_methods)}."
        )
    evidence, candidate_evidence = baseline.explanation.evidence, candidate.explanation.evidence
    if list(evidence) != list(candidate_evidence):
        return (
            f"The baseline explains {', '.join(evidence)}, but the candidate explains {', '.join(candidate_evidence)}."
        )
    for key in evidence:
        shape, candidate_shape = evidence[key].shape[1:], candidate_evidence[key].shape[1:]
        if shape != candidate_shape:
            size, candidate_size = ("×".join(map(str, sides)) for sides in (shape, candidate_shape))
            return f"The maps of {key!r} are {size} in the baseline, but {candidate_size} in the candidate."
    return ""


def _find_image_mismatch(baseline: BaselineData, candidate: BaselineData) -> str:
    images, candidate_images = baseline.images, candidate.images
    if images is None or candidate_images is None:
        if baseline.metadata.image_hash == candidate.metadata.image_hash:
            return ""
        return (
            "The baseline and the candidate explain different images: their hashes differ. To see by how much the "
            "pixels differ, store the images in both."
        )
    if images.shape != candidate_images.shape:
        shape, candidate_shape = tuple(images.shape), tuple(candidate_images.shape)
        return f"The baseline's images have the shape {shape}, but the candidate's have the shape {candidate_shape}."
    difference = measure_pixel_difference(images, candidate_images)
    if not difference <= PIXEL_TOLERANCE + 1e-6:  # also catches NaN
        return (
            "The baseline and the candidate explain different images: pixels differ by up to "
            f"{difference * 255:.0f}/255 before normalization."
        )
    return ""


def _find_class_mismatch(baseline: BaselineData, candidate: BaselineData) -> str:
    classes, candidate_classes = baseline.explanation.classes, candidate.explanation.classes
    if classes is None or candidate_classes is None or torch.equal(classes, candidate_classes):
        return ""
    fraction = float((classes != candidate_classes).float().mean())
    return (
        f"The baseline and the candidate explain different classes in {fraction:.0%} of the images. Record both with "
        "labels, or with `like=` the same baseline."
    )


def _find_missing_seeds(baselines: Sequence[BaselineData], profile: Profile) -> str:
    count = len({baseline.metadata.weights_hash for baseline in baselines})
    if not profile.relative or count >= MIN_SEEDS:
        return ""
    return (
        f"The profile {profile.name!r} needs baselines from at least {MIN_SEEDS} training runs, to measure how much "
        f"runs differ, but got {count} with different weights."
    )


def _list_properties(data: BaselineData) -> dict[str, str]:
    """Return the properties by the keys of report files."""
    metadata = data.metadata
    return {
        **metadata.environment,
        "normalisation": metadata.describe_normalization(),
        "weights": metadata.weights_hash[:12],
        "target": metadata.target,
    }
