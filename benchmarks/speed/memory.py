"""Memory of one call: what autograd keeps for backward, and the most that PyTorch holds at once."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.rounds import Run, wait


@dataclass
class Kept:
    """Counts what autograd saves for backward, each storage once, the model's parameters and buffers aside."""

    aside: set[int]
    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)

    def pack(self, tensor: Tensor) -> Tensor:
        """As `torch.autograd.graph.saved_tensors_hooks` wants it."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.aside:
            self.storages[storage.data_ptr()] = storage  # held, so that no address is given to another
        return tensor.detach()  # a result that its own step keeps would hold itself, for good


def kept_for_backward(run: Run, model: nn.Module) -> int:
    """Bytes that autograd saves meanwhile."""
    count = Kept({t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]})
    with torch.autograd.graph.saved_tensors_hooks(count.pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in count.storages.values())


def peak(run: Run, device: str = "cpu") -> int:
    """The most bytes that PyTorch holds at once meanwhile, beyond what it holds before.

    What NumPy and the libraries below PyTorch allocate by themselves does not count.
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
