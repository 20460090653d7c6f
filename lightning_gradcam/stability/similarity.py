"""Two maps of one image to one number. Maps are ``(N, *s)``, results ``(N,)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_gradcam.stability.statistics import to_float64
from lightning_gradcam.utils.numerics import CONSTANT
from lightning_gradcam.utils.registry import Registry

Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Two batches of maps ``(N, *s)`` after ReLU, at the layer's own resolution, to ``(N,)``."""

SIMILARITIES = Registry[Similarity]("similarity")
"""By name; ``SIMILARITIES.register("name")`` adds one."""


def similarity(a: Tensor, b: Tensor, metric: str = "spearman") -> Tensor:
    """How far two maps of each image agree.

    Args:
        a: ``(N, *s)`` maps after ReLU, at the layer's own resolution, float32.
        b: The maps to compare with, of the same shape.
        metric: A name in `SIMILARITIES`.

    Returns:
        ``(N,)`` float32, larger for maps that agree more (but `center_shift`, a distance). NaN where there is no
        answer: both maps are zero everywhere, one is constant but not zero, or not finite. 0 where one map is zero
        everywhere and the other is not (but `center_shift`: NaN, as there is no centre).

    Raises:
        ValueError: The shapes differ, or there is no such metric.

    >>> maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> similarity(maps, 2 * maps, "spearman"), similarity(maps, maps.flip(1), "center_shift")
    (tensor([1.]), tensor([0.4714]))
    """
    return SIMILARITIES.resolve(metric)(a, b)


@SIMILARITIES.register("spearman")
def spearman(a: Tensor, b: Tensor) -> Tensor:
    r"""Rank correlation of two maps of the same image, in [-1, 1].

    The Pearson correlation of the maps' ranks, where equal cells share the mean of their ranks. As a measure of how far
    two explanations agree: Ghorbani et al. 2019, arXiv:1710.10547; Adebayo et al. 2018, arXiv:1810.03292.

    Args:
        a: ``(N, *s)`` maps after ReLU, at the layer's own resolution.
        b: The maps to compare with, of the same shape.

    Returns:
        ``(N,)``. NaN where there is no answer: both maps are zero everywhere, one of them is constant but not zero, or
        not finite. 0 where one map is zero everywhere and the other is not.

    Raises:
        ValueError: The shapes differ.

    >>> a = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> b = torch.tensor([[0.0, 5.0, 9.0], [2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    >>> spearman(a, b)
    tensor([ 1., -1., 0., nan])
    """
    a, b = _flat(a, b)
    ranks_a, ranks_b = _centred_ranks(a), _centred_ranks(b)
    product = (ranks_a * ranks_b).sum(1)
    # One root of the product, not a product of two roots: equal ranks give exactly 1.
    scale = (ranks_a.square().sum(1) * ranks_b.square().sum(1)).sqrt()
    return _answered((product / torch.where(scale > 0, scale, 1)).clamp(-1, 1), a, b)


TOP = 0.2
"""The share of cells that `topk_overlap` compares."""


@SIMILARITIES.register("topk")
def topk_overlap(a: Tensor, b: Tensor) -> Tensor:
    r"""How much of the strongest fifth of the cells two maps of the same image share, in [0, 1].

    .. math:: \frac{1}{k} \sum_i \min(w^a_i, w^b_i), \qquad k = 0.2\, m

    of ``m`` cells, where a cell's weight ``w`` is 1 above the threshold, 0 below, and equal cells at the threshold
    share what is left: ``(k - greater) / ties``. Top-k intersection: Ghorbani et al. 2019, arXiv:1710.10547.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    Returns:
        ``(N,)``; without an answer, or with one map of zeros, as `spearman`.

    >>> topk_overlap(torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0, 5.0, 5.0]]))
    tensor([0.5000])
    """
    a, b = _flat(a, b)
    shared = torch.minimum(_weights(a), _weights(b)).sum(1) / (TOP * a.shape[1])
    return _answered(shared.clamp(0, 1), a, b)


@SIMILARITIES.register("ssim")
def ssim(a: Tensor, b: Tensor) -> Tensor:
    r"""Structural similarity of two maps of the same image, each divided by its maximum, in [-1, 1].

    The mean over all windows of 3 cells along each dimension that lie inside of the map, weighted evenly, with a data
    range of 1 (Wang et al. 2004, doi:10.1109/TIP.2003.819861). Maps of one or two cells have windows of as many.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    Returns:
        ``(N,)``; without an answer, or with one map of zeros, as `spearman`.

    >>> a = torch.tensor([[[0.0, 1.0, 2.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]])
    >>> ssim(a, 3 * a), ssim(a, a.flip(1)) < 1
    (tensor([1.]), tensor([True]))
    """
    flat_a, flat_b = _flat(a, b)
    window = [min(3, size) for size in a.shape[1:]]

    def mean(values: Tensor) -> Tensor:
        for dimension, length in enumerate(window, 1):
            values = values.unfold(dimension, length, 1).mean(-1)
        return values

    x, y = (_unit(flat).reshape(a.shape) for flat in (flat_a, flat_b))
    mean_x, mean_y = mean(x), mean(y)
    spread_x, spread_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    both = mean(x * y) - mean_x * mean_y
    light, contrast = 0.01**2, 0.03**2
    above = (2 * mean_x * mean_y + light) * (2 * both + contrast)
    below = (mean_x**2 + mean_y**2 + light) * (spread_x + spread_y + contrast)
    return _answered((above / below).flatten(1).mean(1).clamp(-1, 1), flat_a, flat_b)


@SIMILARITIES.register("pearson")
def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Linear correlation of the cells, in [-1, 1]; not changed by a positive factor, nor by what is added.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    >>> pearson(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0, 8.0]]))
    tensor([0.9177])
    """
    flat_a, flat_b = _flat(a, b)
    x, y = (unit - unit.mean(1, keepdim=True) for unit in (_unit(flat_a), _unit(flat_b)))
    return _answered(_cosine(x, y), flat_a, flat_b)


@SIMILARITIES.register("cosine")
def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of the angle between the maps as vectors, in [0, 1]; not changed by a positive factor.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    >>> cosine(torch.tensor([[0.0, 3.0, 4.0]]), torch.tensor([[0.0, 0.0, 2.0]]))
    tensor([0.8000])
    """
    flat_a, flat_b = _flat(a, b)
    return _answered(_cosine(_unit(flat_a), _unit(flat_b)), flat_a, flat_b)


@SIMILARITIES.register("center_shift")
def center_shift(a: Tensor, b: Tensor) -> Tensor:
    """How far the centre of mass moves, in parts of the map's diagonal (from corner cell to corner cell), in [0, 1].

    The only distance here: 0 is no shift. NaN where a map is zero everywhere, which has no centre.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    >>> center_shift(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    tensor([0.5000])
    """
    flat_a, flat_b = _flat(a, b)
    steps = [torch.arange(size, device=a.device) for size in a.shape[1:]]
    places = to_float64(torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).reshape(-1, len(steps)))
    centres = [unit @ places / unit.sum(1, keepdim=True) for unit in (_unit(flat_a), _unit(flat_b))]
    diagonal = sum((size - 1) ** 2 for size in a.shape[1:]) ** 0.5
    shift = torch.linalg.vector_norm(centres[0] - centres[1], dim=1) / (diagonal or 1)
    empty = (flat_a == 0).all(1) | (flat_b == 0).all(1)
    return _answered(shift.clamp(0, 1), flat_a, flat_b).masked_fill(empty, torch.nan)


def _unit(flat: Tensor) -> Tensor:
    """Each map over its maximum, so that squares of 1e-30 are not zero."""
    return to_float64(flat / _divisor(flat))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    scale = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return ((x * y).sum(1) / torch.where(scale > 0, scale, 1)).clamp(-1, 1)


def _flat(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"Expected two batches of maps of one shape (N, *s), but got {a.shape} and {b.shape}.")
    return a.flatten(1), b.flatten(1)


def _answered(values: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Float32, 0 where one map is zero everywhere, and NaN where there is no answer."""
    zero_a, zero_b = (a == 0).all(1), (b == 0).all(1)
    unanswered = _constant(a) | _constant(b) | ~(a.isfinite() & b.isfinite()).all(1) | (zero_a & zero_b)
    return torch.where(zero_a | zero_b, 0.0, values.float()).masked_fill(unanswered, torch.nan)


def _weights(flat: Tensor) -> Tensor:
    """What share of each cell is among the strongest `TOP` of its map."""
    ordered = flat.sort(1).values
    up_to = torch.searchsorted(ordered, flat, right=True)
    ties = up_to - torch.searchsorted(ordered, flat)
    greater = flat.shape[1] - up_to
    return ((TOP * flat.shape[1] - to_float64(greater)) / ties).clamp(0, 1)


def _divisor(flat: Tensor) -> Tensor:
    largest = flat.amax(1, keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _constant(maps: Tensor) -> Tensor:
    low, high = maps.aminmax(dim=1)
    return (high > 0) & (high - low < CONSTANT * high)


def _centred_ranks(maps: Tensor) -> Tensor:
    """Ranks from 0, equal cells sharing the mean of theirs, minus the mean rank: exact in half steps."""
    ordered = maps.sort(1).values
    below = torch.searchsorted(ordered, maps)
    up_to = torch.searchsorted(ordered, maps, right=True)
    return to_float64(below + up_to) / 2 - maps.shape[1] / 2
