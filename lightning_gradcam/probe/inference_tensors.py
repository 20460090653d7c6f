"""Tensors that were created in `torch.inference_mode`."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor


def without_inference_tensors(*values: Any) -> tuple[Any, ...]:
    """Return the values with every inference tensor replaced by a normal copy.

    Autograd accepts no inference tensor, and Lightning validates in `torch.inference_mode`. All other values, which do
    not have to be tensors, are returned without a copy.

    >>> with torch.inference_mode():
    ...     images = torch.ones(2)
    >>> [tensor.is_inference() for tensor in (images, *without_inference_tensors(images))]
    [True, False]
    """
    if not any(_is_inference_tensor(value) for value in values):
        return values
    with torch.inference_mode(False):
        return tuple(value.clone() if _is_inference_tensor(value) else value for value in values)


def _is_inference_tensor(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_inference()
