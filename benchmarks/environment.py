"""The machine and packages of a measurement, and the folder of results."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "grad-cam", "captum", "torchcam", "torchattacks")


def environment(device: str = "cpu") -> dict[str, str]:
    """Return the machine and the versions of packages."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    found = {"CPU": named[1] if named else platform.processor() or platform.machine()}
    if device.startswith("cuda"):
        found["GPU"] = torch.cuda.get_device_name(device)
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


def others(seconds: float = 1.0) -> float:
    """Return how many cores other processes use while this one sleeps; 0 if the system does not say."""
    clock = Path("/proc/stat")
    if not clock.exists():
        return 0.0

    def busy() -> float:
        user, nice, system, _idle, _wait, *rest = map(int, clock.read_text().split("\n")[0].split()[1:8])
        return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")

    start, own, began = busy(), time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return max(busy() - start - (time.process_time() - own), 0.0) / (time.perf_counter() - began)
