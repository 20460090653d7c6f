"""Numerical helpers for batches of maps and images."""

from __future__ import annotations

import torch
from torch import Tensor

CONSTANT = 1e-3
"""A map whose range is below this fraction of its maximum counts as constant: stretching it would show rounding errors.
"""


def expand_rows(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per row, ``(N,)``, to ``(N, 1, ...)``, which broadcasts against ``(N, ...)`` of ``like``.

    >>> expand_rows(torch.tensor([1.0, 2.0]), torch.ones(2, 3, 4)).shape
    torch.Size([2, 1, 1])
    """
    return values.reshape(-1, *[1] * (like.ndim - 1))


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide by the positive entries of the denominator, and by 1 where it is not positive.

    >>> safe_divide(torch.tensor([4.0, 0.0]), torch.tensor([2.0, 0.0]))
    tensor([2., 0.])
    """
    return numerator / torch.where(denominator > 0, denominator, 1)
