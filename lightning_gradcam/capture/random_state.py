"""Random number generators: seeded for a pass, and restored afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

SEED = 0
"""The random seed inside of `isolation.isolated`: the same weights give the same map."""


@contextmanager
def preserve_random_state(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Seed the generators of the process, and restore their states afterwards."""
    devices = sorted({d for d in {p.device for p in parameters} if d.type not in ("cpu", "meta")}, key=str)
    accelerators = [(torch.get_device_module(device), device) for device in devices]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    states = [module.get_rng_state(*_list_device_arguments(device)) for module, device in accelerators]
    try:
        reseed(*devices)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for (module, device), state in zip(accelerators, states, strict=True):
            module.set_rng_state(state, *_list_device_arguments(device))


def reseed(*devices: torch.device) -> None:
    """Seed the generators of the CPU and these devices; call it inside of `isolated` only, which restores them."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.default_generator.manual_seed(SEED)
    for device in devices:
        if device.type not in ("cpu", "meta"):
            module = torch.get_device_module(device)
            with module.device(device) if hasattr(module, "device") else nullcontext():
                module.manual_seed(SEED)


def _list_device_arguments(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one MPS device, and its functions take no device


def seed_generator(generator: Any) -> Callable[[], Any] | None:
    """Seed a generator that a model owns.

    Returns:
        A function that restores its state; None if the object is not a generator.

    >>> generator = torch.Generator().manual_seed(7)
    >>> restore = seed_generator(generator)
    >>> generator.initial_seed()
    0
    >>> _ = restore()
    >>> generator.initial_seed()
    7
    """
    if isinstance(generator, torch.Generator):
        torch_state = generator.get_state()
        generator.manual_seed(SEED)
        return partial(generator.set_state, torch_state)
    if isinstance(generator, random.Random):
        python_state = generator.getstate()
        generator.seed(SEED)
        return partial(generator.setstate, python_state)
    if isinstance(generator, (np.random.Generator, np.random.RandomState)):
        bits = generator.bit_generator if isinstance(generator, np.random.Generator) else generator._bit_generator
        numpy_state = bits.state
        bits.state = type(bits)(SEED).state
        return partial(setattr, bits, "state", numpy_state)
    return None
