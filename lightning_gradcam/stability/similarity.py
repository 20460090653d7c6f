"""Similarities between two maps of an image. Maps are ``(N, *s)``, results ``(N,)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_gradcam.stability.statistics import to_float64
from lightning_gradcam.utils.numerics import CONSTANT
from lightning_gradcam.utils.registry import Registry

Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A callable of two batches of maps ``(N, *s)``, after ReLU and at the layer's resolution, that returns ``(N,)``."""

SIMILARITIES = Registry[Similarity]("similarity")
"""Similarities by name; ``SIMILARITIES.register("name")`` adds one."""


def similarity(a: Tensor, b: Tensor, metric: str = "spearman") -> Tensor:
    """Return how far two maps of each image agree.

    Args:
        a: ``(N, *s)`` maps after ReLU, at the layer's own resolution, float32.
        b: The maps to compare with, of the same shape.
        metric: A name in `SIMILARITIES`.

    Returns:
        ``(N,)`` float32, larger for maps that agree more (except for `center_shift`, a distance). NaN if the
        similarity is undefined: both maps are zero everywhere, one is constant but not zero, or not finite. 0 if one
        map is zero everywhere and the other is not (except for `center_shift`: NaN, because there is no center).

    Raises:
        ValueError: The shapes differ, or the metric is not registered.

    >>> maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> similarity(maps, 2 * maps, "spearman"), similarity(maps, maps.flip(1), "center_shift")
    (tensor([1.]), tensor([0.4714]))
    """
    return SIMILARITIES.resolve(metric)(a, b)


@SIMILARITIES.register("spearman")
def spearman(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the rank correlation of two maps of the same image, in [-1, 1].

    It is the Pearson correlation of the maps' ranks; equal cells share the mean of their ranks. Used as a similarity of
    explanations by Ghorbani et al. 2019, arXiv:1710.10547, and Adebayo et al. 2018, arXiv:1810.03292.

    Args:
        a: ``(N, *s)`` maps after ReLU, at the layer's own resolution.
        b: The maps to compare with, of the same shape.

    Returns:
        ``(N,)``. NaN if it is undefined: both maps are zero everywhere, one of them is constant but not zero, or not
        finite. 0 if one map is zero everywhere and the other is not.

    Raises:
        ValueError: The shapes differ.

    >>> a = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> b = torch.tensor([[0.0, 5.0, 9.0], [2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    >>> spearman(a, b)
    tensor([ 1., -1., 0., nan])
    """
    a, b = _flatten_pair(a, b)
    ranks_a, ranks_b = _compute_centered_ranks(a), _compute_centered_ranks(b)
    product = (ranks_a * ranks_b).sum(1)
    # One root of the product, not a product of two roots: equal ranks give exactly 1.
    scale = (ranks_a.square().sum(1) * ranks_b.square().sum(1)).sqrt()
    return _mask_undefined((product / torch.where(scale > 0, scale, 1)).clamp(-1, 1), a, b)


TOP = 0.2
"""The fraction of cells that `topk_overlap` compares."""


@SIMILARITIES.register("topk")
def topk_overlap(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the overlap of the strongest fifth of the cells of two maps of the same image, in [0, 1].

    .. math:: \frac{1}{k} \sum_i \min(w^a_i, w^b_i), \qquad k = 0.2\, m

    for ``m`` cells. The weight ``w`` of a cell is 1 above the threshold and 0 below; cells equal to the threshold share
    the remaining weight: ``(k - greater) / ties``. Top-k intersection: Ghorbani et al. 2019, arXiv:1710.10547.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    Returns:
        ``(N,)``; NaN and 0 in the same cases as `spearman`.

    >>> topk_overlap(torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0, 5.0, 5.0]]))
    tensor([0.5000])
    """
    a, b = _flatten_pair(a, b)
    shared = torch.minimum(_compute_top_weights(a), _compute_top_weights(b)).sum(1) / (TOP * a.shape[1])
    return _mask_undefined(shared.clamp(0, 1), a, b)


@SIMILARITIES.register("ssim")
def ssim(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the structural similarity of two maps of the same image, each divided by its maximum, in [-1, 1].

    It is the mean over all windows inside the map, of 3 cells along each dimension, weighted evenly, with a data range
    of 1 (Wang et al. 2004, doi:10.1109/TIP.2003.819861). A dimension of one or two cells has windows of that length.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    Returns:
        ``(N,)``; NaN and 0 in the same cases as `spearman`.

    >>> a = torch.tensor([[[0.0, 1.0, 2.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]])
    >>> ssim(a, 3 * a), ssim(a, a.flip(1)) < 1
    (tensor([1.]), tensor([True]))
    """
    flat_a, flat_b = _flatten_pair(a, b)
    window = [min(3, size) for size in a.shape[1:]]

    def mean(values: Tensor) -> Tensor:
        for dimension, length in enumerate(window, 1):
            values = values.unfold(dimension, length, 1).mean(-1)
        return values

    x, y = (_divide_by_maximum(flat).reshape(a.shape) for flat in (flat_a, flat_b))
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    light, contrast = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + light) * (2 * covariance + contrast)
    denominator = (mean_x**2 + mean_y**2 + light) * (variance_x + variance_y + contrast)
    return _mask_undefined((numerator / denominator).flatten(1).mean(1).clamp(-1, 1), flat_a, flat_b)


@SIMILARITIES.register("pearson")
def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return the linear correlation of the cells, in [-1, 1].

    It is invariant to a positive factor and to an added constant.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    >>> pearson(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0, 8.0]]))
    tensor([0.9177])
    """
    flat_a, flat_b = _flatten_pair(a, b)
    x, y = (unit - unit.mean(1, keepdim=True) for unit in (_divide_by_maximum(flat_a), _divide_by_maximum(flat_b)))
    return _mask_undefined(_compute_cosine(x, y), flat_a, flat_b)


@SIMILARITIES.register("cosine")
def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of the angle between the maps as vectors, in [0, 1].

    It is invariant to a positive factor.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    >>> cosine(torch.tensor([[0.0, 3.0, 4.0]]), torch.tensor([[0.0, 0.0, 2.0]]))
    tensor([0.8000])
    """
    flat_a, flat_b = _flatten_pair(a, b)
    return _mask_undefined(_compute_cosine(_divide_by_maximum(flat_a), _divide_by_maximum(flat_b)), flat_a, flat_b)


@SIMILARITIES.register("center_shift")
def center_shift(a: Tensor, b: Tensor) -> Tensor:
    """Return the shift of the center of mass as a fraction of the map's diagonal, in [0, 1].

    The diagonal runs from corner cell to corner cell. Unlike the similarities, this is a distance: 0 means no shift.
    NaN if a map is zero everywhere, because it has no center.

    Args:
        a: ``(N, *s)`` maps after ReLU.
        b: The maps to compare with, of the same shape.

    >>> center_shift(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    tensor([0.5000])
    """
    flat_a, flat_b = _flatten_pair(a, b)
    steps = [torch.arange(size, device=a.device) for size in a.shape[1:]]
    positions = to_float64(torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).reshape(-1, len(steps)))
    centers = [
        unit @ positions / unit.sum(1, keepdim=True)
        for unit in (_divide_by_maximum(flat_a), _divide_by_maximum(flat_b))
    ]
    diagonal = sum((size - 1) ** 2 for size in a.shape[1:]) ** 0.5
    shift = torch.linalg.vector_norm(centers[0] - centers[1], dim=1) / (diagonal or 1)
    is_empty = (flat_a == 0).all(1) | (flat_b == 0).all(1)
    return _mask_undefined(shift.clamp(0, 1), flat_a, flat_b).masked_fill(is_empty, torch.nan)


def _divide_by_maximum(flat: Tensor) -> Tensor:
    """Divide each map by its maximum, so that squares of values such as 1e-30 do not underflow."""
    return to_float64(flat / _get_divisor(flat))


def _compute_cosine(x: Tensor, y: Tensor) -> Tensor:
    scale = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return ((x * y).sum(1) / torch.where(scale > 0, scale, 1)).clamp(-1, 1)


def _flatten_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"Expected two batches of maps of one shape (N, *s), but got {a.shape} and {b.shape}.")
    return a.flatten(1), b.flatten(1)


def _mask_undefined(values: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the values as float32, with 0 if one map is zero everywhere, and NaN if the similarity is undefined."""
    zero_a, zero_b = (a == 0).all(1), (b == 0).all(1)
    is_undefined = _is_constant(a) | _is_constant(b) | ~(a.isfinite() & b.isfinite()).all(1) | (zero_a & zero_b)
    return torch.where(zero_a | zero_b, 0.0, values.float()).masked_fill(is_undefined, torch.nan)


def _compute_top_weights(flat: Tensor) -> Tensor:
    """Return the weight of each cell among the strongest `TOP` of its map, in [0, 1]."""
    ordered = flat.sort(1).values
    not_greater = torch.searchsorted(ordered, flat, right=True)
    ties = not_greater - torch.searchsorted(ordered, flat)
    greater = flat.shape[1] - not_greater
    return ((TOP * flat.shape[1] - to_float64(greater)) / ties).clamp(0, 1)


def _get_divisor(flat: Tensor) -> Tensor:
    largest = flat.amax(1, keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _is_constant(maps: Tensor) -> Tensor:
    low, high = maps.aminmax(dim=1)
    return (high > 0) & (high - low < CONSTANT * high)


def _compute_centered_ranks(maps: Tensor) -> Tensor:
    """Return the ranks of the cells minus their mean; equal cells share the mean of their ranks.

    All values are multiples of one half, and so exact.
    """
    ordered = maps.sort(1).values
    less = torch.searchsorted(ordered, maps)
    not_greater = torch.searchsorted(ordered, maps, right=True)
    return to_float64(less + not_greater) / 2 - maps.shape[1] / 2
