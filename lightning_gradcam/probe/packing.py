"""Lossless compression of a probe's tensors for checkpoints."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVELS = 256
"""The number of distinct values that one byte can tell apart."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def pack(tensor: Tensor) -> Tensor | dict[str, Any]:
    """Return a tensor in a smaller form that `unpack` restores bit for bit, or the tensor if there is none.

    Images that were decoded from 8 bits have at most 256 distinct values in each channel, whatever their normalization,
    and so do masks. One byte per value and the table of values are enough, and bytes compress well.

    Args:
        tensor: ``(N, C, *spatial)`` or any other shape, on the CPU.

    Returns:
        The tensor, or a mapping of ``"codes"`` (compressed uint8), ``"levels"`` ``(C, 256)`` and ``"shape"``.

    >>> images = torch.randint(256, (2, 3, 8, 8)) / 255
    >>> torch.equal(unpack(pack((images - 0.4) / 0.2)), (images - 0.4) / 0.2)
    True
    """
    if tensor.ndim < 3 or tensor.element_size() not in _INTEGERS or tensor.is_complex():
        return tensor
    # Bit patterns, because -0.0 equals 0.0, and NaN nothing.
    patterns = tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()]).transpose(0, 1)
    if len(torch.unique(patterns[0, 0])) > LEVELS:
        return tensor  # known from one image, before all are sorted
    codes, levels = [], torch.zeros(len(patterns), LEVELS, dtype=patterns.dtype)
    for table, channel in zip(levels, patterns, strict=True):
        values, indices = torch.unique(channel, return_inverse=True)
        if len(values) > LEVELS:
            return tensor
        table[: len(values)] = values
        codes.append(indices.to(torch.uint8))
    content = zlib.compress(torch.stack(codes).numpy().tobytes(), level=6)
    if len(content) + levels.nbytes >= tensor.nbytes:
        return tensor
    packed = torch.from_numpy(np.frombuffer(content, np.uint8).copy())  # a bytes object would be saved as text
    return {"codes": packed, "levels": levels.view(tensor.dtype), "shape": list(tensor.shape)}


def unpack(value: Tensor | Mapping[str, Any]) -> Tensor:
    """Restore a tensor from `pack`.

    Raises:
        ValueError: The content has another size than its shape says.
    """
    if isinstance(value, Tensor):
        return value
    levels, (rows, channels, *size) = value["levels"], value["shape"]
    count = math.prod(value["shape"])
    # At most one byte more, because a few bytes of a damaged file can stand for gigabytes.
    content = zlib.decompressobj().decompress(value["codes"].numpy().tobytes(), count + 1)
    if len(content) != count:
        raise ValueError(f"Expected {count} packed values, but got {'more' if len(content) > count else len(content)}.")
    indices = torch.from_numpy(np.frombuffer(content, np.uint8).copy()).reshape(channels, -1).long()
    restored: Tensor = levels.gather(1, indices).reshape(channels, rows, *size).transpose(0, 1).contiguous()
    return restored
