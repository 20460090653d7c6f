"""Memory of one call: what autograd saves for backward, and the peak that PyTorch allocates."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.rounds import Run, wait


@dataclass
class Kept:
    """Storages that autograd saves for backward, each once, without the model's parameters and buffers."""

    aside: set[int]
    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)

    def pack(self, tensor: Tensor) -> Tensor:
        """Record a tensor, as a pack hook of `torch.autograd.graph.saved_tensors_hooks`."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.aside:
            self.storages[storage.data_ptr()] = storage  # kept alive, so that its address is not reused
        return tensor.detach()  # else a result saved by its own step would keep itself alive


def kept_for_backward(run: Run, model: nn.Module) -> int:
    """Return the bytes that autograd saves during a run."""
    count = Kept({t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]})
    with torch.autograd.graph.saved_tensors_hooks(count.pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in count.storages.values())


def peak(run: Run, device: str = "cpu") -> int:
    """Return the peak bytes that PyTorch allocates during a run, beyond what it held before.

    Allocations of NumPy and of the libraries below PyTorch are not counted.
    """
    gc.collect()
    wait(device)
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
