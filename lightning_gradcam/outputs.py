"""What modules return: a tensor, or containers of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor


def floats(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors in what a module returned; the first is the one that is looked at."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
        return
    inside = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    yield from (found for item in inside for found in floats(item))


def swap(output: Any, old: Tensor, new: Tensor) -> Any:
    """What a module returned, with one tensor exchanged; containers are copied, never changed."""
    if output is old:
        return new
    if isinstance(output, tuple):
        items = [swap(item, old, new) for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if isinstance(output, list):
        return [swap(item, old, new) for item in output]
    if isinstance(output, MutableMapping):
        swapped = copy.copy(output)
        for key, item in output.items():
            swapped[key] = swap(item, old, new)
        return swapped
    return output
