"""On what was measured, and where results go."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "grad-cam", "captum", "torchcam", "torchattacks")


def environment(device: str = "cpu") -> dict[str, str]:
    """On what was measured."""
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


def load() -> float:
    """How many other processes want a core, by the mean of the last minute."""
    return os.getloadavg()[0]
