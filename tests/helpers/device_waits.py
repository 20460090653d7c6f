"""A recorder of operations that wait for the device."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Notes every operation that needs a value on the host, and so would wait for a GPU, and every value from there."""

    names = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique", "item")

    def __init__(self):
        super().__init__()
        self.seen, self.given = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0].lstrip("_")
        by_mask = name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for a in args
            if isinstance(a, (list, tuple))
            for i in a
        )  # waits for the mask's count
        if by_mask or name in [n.lstrip("_") for n in self.names]:
            self.seen.append(func.__name__)
        if name == "lift_fresh":  # `torch.tensor` and its like
            self.given.append(args[0].tolist())
        return func(*args, **(kwargs or {}))
