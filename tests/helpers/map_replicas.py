"""Slow replicas of the similarities of maps, and random maps."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import center_of_mass
from scipy.spatial.distance import cosine as cosine_distance
from scipy.stats import spearmanr

from lightning_gradcam.utils.numerics import CONSTANT


def is_constant(values: np.ndarray) -> bool:
    """Within the range where showing it would stretch rounding errors."""
    most, least = float(values.max()), float(values.min())
    return most > 0 and most - least < CONSTANT * most


def plain_topk(a: np.ndarray, b: np.ndarray) -> float:
    """Cell by cell."""
    k = 0.2 * a.size

    def weight(values: np.ndarray, i: int) -> float:
        greater, ties = (values > values[i]).sum(), (values == values[i]).sum()
        return min(max((k - greater) / ties, 0), 1)

    return sum(min(weight(a.ravel(), i), weight(b.ravel(), i)) for i in range(a.size)) / k


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Window by window."""
    x, y = (v.astype(np.float64) / v.max() for v in (a, b))
    window = [min(3, size) for size in a.shape]
    values = []
    for start in itertools.product(*(range(size - w + 1) for size, w in zip(a.shape, window, strict=True))):
        at = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
        p, q = x[at].ravel(), y[at].ravel()
        both = ((p - p.mean()) * (q - q.mean())).mean()
        above = (2 * p.mean() * q.mean() + 1e-4) * (2 * both + 9e-4)
        values.append(above / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4)))
    return float(np.mean(values))


def plain_pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def plain_shift(a: np.ndarray, b: np.ndarray) -> float:
    """Compare scipy's centers of mass, not clamped to the grid."""
    first, second = (np.array(center_of_mass(v.astype(np.float64) / v.max())) for v in (a, b))
    corner = np.array(a.shape) - 1
    return float(np.linalg.norm(first - second) / (np.linalg.norm(corner) or 1))


ORACLES = {
    "spearman": lambda a, b: float(spearmanr(a.ravel().astype(np.float64), b.ravel().astype(np.float64)).statistic),
    "topk": plain_topk,
    "ssim": plain_ssim,
    "pearson": lambda a, b: plain_pearson(*(v.ravel().astype(np.float64) / v.max() for v in (a, b))),
    "cosine": lambda a, b: 1 - cosine_distance(*(v.ravel().astype(np.float64) / v.max() for v in (a, b))),
    "center_shift": plain_shift,
}
"""A measure is tested by being entered here."""


def on_the_edge(values: np.ndarray) -> bool:
    """Of what counts as constant."""
    return any(
        np.isfinite(m).all() and m.max() > 0 and abs((m.max() - m.min()) / m.max() - CONSTANT) <= 1e-6 for m in values
    )


def expected(name: str, a: np.ndarray, b: np.ndarray) -> float:
    """The table of definitions, then a replica in float64."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    if (a == 0).all() and (b == 0).all():
        return math.nan
    if is_constant(a) or is_constant(b):
        return math.nan
    if (a == 0).all() or (b == 0).all():
        return math.nan if name == "center_shift" else 0.0
    return ORACLES[name](a, b)


@st.composite
def maps(draw, count: int = 2):
    """Several maps of one grid: random, tied, one-hot, tiny, constant, zero, or not finite."""
    grid = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))

    def one() -> np.ndarray:
        kind = draw(st.sampled_from(["random", "random", "tied", "one-hot", "constant", "zero", "nan"]))
        if kind == "random":
            values = draw(arrays(np.float32, grid, elements=st.floats(0, 10, width=32, allow_subnormal=False)))
        elif kind == "tied":
            values = draw(arrays(np.float32, grid, elements=st.sampled_from([0.0, 0.0, 1.0, 2.0])))
        elif kind == "one-hot":
            values = np.zeros(grid, np.float32)
            values.flat[draw(st.integers(0, values.size - 1))] = 3
        else:
            values = np.full(grid, 0.0 if kind == "zero" else 0.7, np.float32)
        if kind == "nan":
            values.flat[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from([np.nan, np.inf]))
        return values * np.float32(draw(st.sampled_from([1, 1, 1e-30, 1e30])))

    return [np.stack([one() for _ in range(rows)]) for rows in [draw(st.sampled_from([1, 1, 4]))] * count]
