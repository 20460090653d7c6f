"""Module outputs: a tensor, or containers of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.probe.inference_tensors import without_inference_tensors
from lightning_gradcam.probe.plain_tensors import as_plain_tensor


def list_float_tensors(output: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a module's output; the first one is explained."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
        return
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    yield from (tensor for item in items for tensor in list_float_tensors(item))


def map_tensors(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Replace every tensor in a module's output; containers are copied, not changed.

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


def with_plain_tensors(output: Any) -> Any:
    """Return an output in which plain tensors replace those with metadata, see `plain_tensors.as_plain_tensor`."""
    is_plain = all(as_plain_tensor(tensor) is tensor for tensor in list_float_tensors(output))
    return output if is_plain else map_tensors(output, as_plain_tensor)


def replace_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """Replace one tensor in a module's output."""
    return map_tensors(output, lambda tensor: new if tensor is old else tensor)


def get_version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; 0 for inference tensors, which do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def replace_inference_arguments(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace the inference tensors in a module's arguments, unless inference mode is still on (a forward pre-hook)."""
    return args if torch.is_inference_mode_enabled() else without_inference_tensors(*args)


def with_grad(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Enable grad from here on, also in a no_grad block of the model.

    Returns:
        The tensor to compute gradients for, and its clone for the model to continue with.
    """
    with torch.inference_mode(False), torch.enable_grad():  # autograd rejects inference tensors
        tensor = as_plain_tensor(tensor)
        if not tensor.requires_grad:
            tensor = (tensor.clone() if tensor.is_inference() else tensor.detach()).requires_grad_()
        clone = tensor.clone()
    torch.set_grad_enabled(True)
    return tensor, clone
