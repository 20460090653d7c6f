"""How long an explanation and a whole look take beside a plain forward pass, and what is kept for backward.

Run as ``python -m benchmarks.look``. All contestants take turns within one run, so that ratios of one round compare
like with like; absolute times hold for the machine only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from benchmarks.contestants import (
    OURS,
    PARTS,
    Case,
    Contestant,
    captum,
    explanation,
    forward,
    installed_peers,
    prepared,
)
from benchmarks.methods import contestants as of_methods
from benchmarks.report import FORWARD, Memory, Report, Timing
from lightning_gradcam.capture import capture
from lightning_gradcam.isolation import isolated

ROOT = Path(__file__).parents[1]
WARM_UP = 2
"""Rounds that are not counted."""

MEMORY_CASE = ("resnet50", 8)
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "grad-cam", "captum", "torchcam", "torchattacks")


def environment() -> dict[str, str]:
    """On what was measured."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    found = {"CPU": named[1] if named else platform.processor() or platform.machine()}
    found |= {
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def measure(name: str, images: int, rounds: int, contestants: Mapping[str, Contestant]) -> Timing:
    """Time the contestants in turn, in another order each round.

    Args:
        name: A model of torchvision.
        images: How many.
        rounds: How many are counted.
        contestants: By name.
    """
    milliseconds: dict[str, list[float]] = {each: [] for each in contestants}
    order, shuffler = list(contestants), random.Random(0)
    with prepared(name, images) as case:
        for turn in range(-WARM_UP, rounds):
            shuffler.shuffle(order)
            for each in order:
                elapsed = clock(contestants[each], case)
                if turn >= 0:
                    milliseconds[each].append(elapsed)
        looks = [[1000 * seconds for seconds in look] for look in case.parts[WARM_UP:]]
        parts = dict(zip(PARTS, map(list, zip(*looks, strict=True)), strict=True)) if looks else {}
        return Timing(name, images, case.plan.layers[0].name, milliseconds, parts)


def clock(contestant: Contestant, case: Case) -> float:
    """Milliseconds of one call; what it leaves on the model is removed afterwards, so that nobody inherits it."""
    gc.collect()
    start = perf_counter()
    contestant(case)
    elapsed = perf_counter() - start
    case.model.zero_grad(set_to_none=True)
    return 1000 * elapsed


@dataclass
class Kept:
    """Counts what autograd saves for backward, each storage once, the model's parameters and buffers aside."""

    aside: set[int]
    storages: dict[int, torch.UntypedStorage]

    @staticmethod
    def beside(model: nn.Module) -> Kept:
        """Nothing yet."""
        return Kept({t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}, {})

    def pack(self, tensor: Tensor) -> Tensor:
        """As `torch.autograd.graph.saved_tensors_hooks` wants it."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.aside:
            self.storages[storage.data_ptr()] = storage  # held, so that no address is given to another
        return tensor

    @property
    def bytes(self) -> int:
        """All together."""
        return sum(storage.nbytes() for storage in self.storages.values())


def measure_memory(name: str, images: int, contestants: Mapping[str, Contestant]) -> Memory:
    """Count what each contestant keeps for backward, and what our explanation holds at the layer besides.

    Args:
        name: A model of torchvision.
        images: How many.
        contestants: By name.
    """
    kept: dict[str, int] = {}
    with prepared(name, images) as case:
        for each, contestant in contestants.items():
            count = Kept.beside(case.model)
            with torch.autograd.graph.saved_tensors_hooks(count.pack, lambda tensor: tensor):
                contestant(case)
            case.model.zero_grad(set_to_none=True)
            kept[each] = count.bytes
        with isolated(case.model):
            passes = capture(case.model, case.probe, case.plan.layers, case.plan.forward, [case.watch.target])[0]
            key = case.plan.layers[0].key
            activation, gradient = passes.activations[key].nbytes, passes.gradients[key].nbytes
    return Memory(name, images, key, kept, activation, gradient)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``benchmarks/results/look.json`` and ``docs/benchmarks.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.look", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=7, help=f"that count; {WARM_UP} more warm up")
    parser.add_argument("--images", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v3_large"], help="of torchvision")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or min(options.images) < 2:
        parser.error("expected at least 1 round and 2 images")
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    if os.getloadavg()[0] > cores / 2:
        print("Others are using this machine: do not trust the times.")

    peers = installed_peers()
    timings = []
    for name in options.models:
        for images in options.images:
            print(f"{name}, {images} images: {WARM_UP} + {options.rounds} rounds", flush=True)
            timings.append(measure(name, images, options.rounds, {FORWARD: forward, **OURS, **peers}))
    name, images = options.models[0], options.images[0]
    print(f"every method, {name}, {images} images: {WARM_UP} + {options.rounds} rounds", flush=True)
    every = {FORWARD: forward, **of_methods(set(peers), pooled=True)}
    if "captum" in peers:
        every["captum: gradcam"] = captum
    methods = measure(name, images, options.rounds, every)
    print("bytes kept for backward", flush=True)
    memory = measure_memory(*MEMORY_CASE, {"ours: explanation": explanation, **peers})

    report = Report(environment(), options.rounds, WARM_UP, timings, methods, memory)
    print(f"\n{report.markdown()}")
    if not options.no_write:
        results = ROOT / "benchmarks" / "results" / "look.json"
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        (ROOT / "docs" / "benchmarks.md").write_text(report.markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
