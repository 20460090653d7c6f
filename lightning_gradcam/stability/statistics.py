"""Statistics of single maps ``(N, *s)``, and of values ``(N,)`` over images."""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 10_000
"""The number of bootstrap samples."""

LEVEL = 0.95
"""The confidence level of a one-sided bound."""


def bootstrap_bounds(values: Tensor, level: float = LEVEL, draws: int = DRAWS) -> tuple[float, float]:
    """Return one-sided lower and upper bounds of the mean, by the percentile bootstrap (Efron 1979).

    The draws have a fixed seed, so the same values give the same bounds.

    Args:
        values: ``(N,)``, one per image, at least one, all finite.
        level: The confidence level of each bound.
        draws: The number of samples of N images.

    >>> low, high = bootstrap_bounds(torch.tensor([0.9, 1.0, 0.8, 1.0]))
    >>> 0.8 <= low < 0.925 < high <= 1.0
    True
    """
    exact = values.double().cpu()
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(len(exact), (draws, len(exact)), generator=generator)
    low, high = exact[indices].mean(1).quantile(torch.tensor([1 - level, level], dtype=torch.float64)).tolist()
    return low, high


def gini(maps: Tensor) -> Tensor:
    r"""Return the concentration of the evidence: 0 if all cells are equal, close to 1 if one cell has all of it.

    .. math:: \frac{2 \sum_i i\, x_{(i)}}{m \sum_i x_i} - \frac{m + 1}{m}

    for the ``m`` cells in ascending order (Gini 1912; for saliency maps: Chalasani et al. 2020, arXiv:1810.06583).

    Args:
        maps: ``(N, *s)`` maps after ReLU.

    Returns:
        ``(N,)`` in [0, 1 - 1 / m]; NaN for maps that are zero everywhere or not finite.

    >>> gini(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]))
    tensor([0.0000, 0.7500,    nan])
    """
    flat = to_float64(maps.flatten(1)).sort(1).values
    cells = flat.shape[1]
    order = torch.arange(1, cells + 1, device=flat.device, dtype=flat.dtype)
    total = flat.sum(1)
    value = 2 * (order * flat).sum(1) / (cells * torch.where(total > 0, total, 1)) - (cells + 1) / cells
    return value.clamp(0, 1).float().masked_fill((total == 0) | ~flat.isfinite().all(1), torch.nan)


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the values that are not NaN, and its standard error.

    Args:
        values: ``(..., N)``, NaN for images without a value.

    Returns:
        Two tensors ``(...)``; NaN if there is no value, and for the error also if there is only one.

    >>> [round(float(x), 3) for x in mean_and_error(torch.tensor([1.0, 3.0, torch.nan]))]
    [2.0, 1.0]
    """
    is_valid = ~values.isnan()
    count = is_valid.sum(-1)
    mean = values.nansum(-1) / torch.where(count > 0, count, torch.nan)
    spread = torch.where(is_valid, values - mean[..., None], 0).square().sum(-1)
    return mean, (spread / torch.where(count > 1, (count - 1) * count, torch.nan)).sqrt()


def to_float64(values: Tensor) -> Tensor:
    """Convert to float64, which sums of ranks need; to float32 on Apple's GPUs, which have no float64.

    Float32 is exact enough for maps of a few thousand cells.
    """
    return values.float() if values.device.type == "mps" else values.double()
