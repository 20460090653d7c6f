"""How sure a mean is."""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 10_000
LEVEL = 0.95


def bounds_of_mean(values: Tensor, level: float = LEVEL, draws: int = DRAWS) -> tuple[float, float]:
    """One-sided lower and upper bounds of the mean, by the percentile bootstrap (Efron 1979).

    The same values give the same bounds: the draws have a seed of their own.

    Args:
        values: ``(N,)``, one per image, at least one, all finite.
        level: How often each bound is to hold.
        draws: How many samples of N images are drawn.

    >>> low, high = bounds_of_mean(torch.tensor([0.9, 1.0, 0.8, 1.0]))
    >>> 0.8 <= low < 0.925 < high <= 1.0
    True
    """
    exact = values.double().cpu()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(exact), (draws, len(exact)), generator=generator)
    low, high = exact[chosen].mean(1).quantile(torch.tensor([1 - level, level], dtype=torch.float64)).tolist()
    return low, high
