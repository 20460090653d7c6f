"""Measures of maps: the similarity of two maps of an image, and the concentration of one."""

from __future__ import annotations

from lightning_gradcam.stability.similarity import (
    SIMILARITIES,
    Similarity,
    center_shift,
    cosine,
    pearson,
    similarity,
    spearman,
    ssim,
    topk_overlap,
)
from lightning_gradcam.stability.statistics import gini, mean_and_error

__all__ = [
    "SIMILARITIES",
    "Similarity",
    "center_shift",
    "cosine",
    "gini",
    "mean_and_error",
    "pearson",
    "similarity",
    "spearman",
    "ssim",
    "topk_overlap",
]
