"""One map to one number, and many numbers to their mean. Maps are ``(N, *s)``, numbers ``(N,)``."""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 10_000
LEVEL = 0.95


def bootstrap_bounds(values: Tensor, level: float = LEVEL, draws: int = DRAWS) -> tuple[float, float]:
    """One-sided lower and upper bounds of the mean, by the percentile bootstrap (Efron 1979).

    The same values give the same bounds: the draws have a seed of their own.

    Args:
        values: ``(N,)``, one per image, at least one, all finite.
        level: How often each bound is to hold.
        draws: How many samples of N images are drawn.

    >>> low, high = bootstrap_bounds(torch.tensor([0.9, 1.0, 0.8, 1.0]))
    >>> 0.8 <= low < 0.925 < high <= 1.0
    True
    """
    exact = values.double().cpu()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(exact), (draws, len(exact)), generator=generator)
    low, high = exact[chosen].mean(1).quantile(torch.tensor([1 - level, level], dtype=torch.float64)).tolist()
    return low, high


def gini(maps: Tensor) -> Tensor:
    r"""How concentrated the evidence is: 0 where all cells have the same, towards 1 where one cell has it all.

    .. math:: \frac{2 \sum_i i\, x_{(i)}}{m \sum_i x_i} - \frac{m + 1}{m}

    of the ``m`` cells sorted upwards (Gini 1912; for saliency maps: Chalasani et al. 2020, arXiv:1810.06583).

    Args:
        maps: ``(N, *s)`` maps after ReLU.

    Returns:
        ``(N,)``, at most ``1 - 1 / m``; NaN for maps that are zero everywhere or not finite.

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
    """The mean of the values ``(..., N)`` that are there, and its standard error, both ``(...)``.

    NaN where none (for the error: fewer than two) is.

    >>> [round(float(x), 3) for x in mean_and_error(torch.tensor([1.0, 3.0, torch.nan]))]
    [2.0, 1.0]
    """
    there = ~values.isnan()
    count = there.sum(-1)
    mean = values.nansum(-1) / torch.where(count > 0, count, torch.nan)
    spread = torch.where(there, values - mean[..., None], 0).square().sum(-1)
    return mean, (spread / torch.where(count > 1, (count - 1) * count, torch.nan)).sqrt()


def to_float64(values: Tensor) -> Tensor:
    """Sums of ranks need float64; Apple's GPUs have none, and there float32 serves maps of a few thousand cells."""
    return values.float() if values.device.type == "mps" else values.double()
