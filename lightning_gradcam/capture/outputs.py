"""What modules return: a tensor, or containers of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.utils.inference_mode import without_inference_tensors


def list_float_tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors in what a module returned; the first is the one that is looked at."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
        return
    inside = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    yield from (found for item in inside for found in list_float_tensors(item))


def map_tensors(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a module returned, with every tensor exchanged; containers are copied, never changed.

    >>> map_tensors((torch.ones(2), {"a": torch.zeros(1)}, None), lambda tensor: tensor + 1)
    (tensor([2., 2.]), {'a': tensor([1.])}, None)
    """
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple):
        items = [map_tensors(item, change) for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if isinstance(output, list):
        return [map_tensors(item, change) for item in output]
    if isinstance(output, MutableMapping):
        changed = copy.copy(output)
        for key, item in output.items():
            changed[key] = map_tensors(item, change)
        return changed
    return output


def replace_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """What a module returned, with one tensor exchanged."""
    return map_tensors(output, lambda tensor: new if tensor is old else tensor)


def get_version(tensor: Tensor) -> int:
    """How often it was changed in place; what was made in inference mode does not count that."""
    return 0 if tensor.is_inference() else tensor._version


def replace_inference_arguments(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace the inference tensors in a module's arguments, unless inference mode is still on (a forward pre-hook)."""
    return args if torch.is_inference_mode_enabled() else without_inference_tensors(*args)


def with_grad(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Switch grad on from here, also in a no_grad block: what a gradient is asked for, and the clone that goes on."""
    with torch.inference_mode(False), torch.enable_grad():  # autograd takes nothing that was made in inference mode
        if not tensor.requires_grad:
            tensor = (tensor.clone() if tensor.is_inference() else tensor.detach()).requires_grad_()
        clone = tensor.clone()
    torch.set_grad_enabled(True)
    return tensor, clone
