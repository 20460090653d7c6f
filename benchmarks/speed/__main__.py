"""Time and memory of explanations, snapshots and training runs, compared with a plain forward pass and with peers.

Run as ``python -m benchmarks.speed``. Absolute times depend on the machine; ratios are within one round.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # before PyTorch is loaded, whose profiler prints otherwise

import torch

from benchmarks.environment import RESULTS, ROOT, environment, others
from benchmarks.speed.page import ON_CPU, SECTIONS, markdown
from benchmarks.speed.rounds import Options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``benchmarks/results/speed.json`` and ``docs/benchmarks.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=main.__doc__)
    parser.add_argument("sections", nargs="*", help=f"any of {', '.join(SECTIONS)}; default on a CPU: all but absolute")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="only check that everything runs; write nothing")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on every time budget")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="threads of PyTorch; default: all cores"
    )
    parser.add_argument("--rounds", type=int, default=7, help="least number of rounds")
    parser.add_argument("--page", action="store_true", help="only write the page, from the results file")
    given = parser.parse_args(arguments)
    sections = given.sections or (ON_CPU if given.device == "cpu" else tuple(SECTIONS))
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"Expected sections of {', '.join(SECTIONS)}, but got {', '.join(unknown)}")
    options = Options(given.device, given.quick, given.patience, given.rounds)
    file = results_file("cuda" if given.device.startswith("cuda") else "cpu")
    results = read(file)
    torch.set_num_threads(given.threads)
    for name in () if given.page else sections:
        results[name] = measured(name, options)
        if not given.quick:
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if given.quick:
        print(markdown({name: results[name] for name in sections}, {}))
    else:
        page = markdown(read(results_file("cpu")), read(results_file("cuda")))
        (ROOT / "docs" / "benchmarks.md").write_text(page, encoding="utf-8")


def measured(name: str, options: Options) -> dict[str, Any]:
    """Measure one section, and return its results with the environment."""
    busy = others() > 0.25
    print(f"{name}{' (other processes are using this machine: do not trust the times)' if busy else ''}", flush=True)
    start = perf_counter()
    results = SECTIONS[name].measure(options)
    print(f"  {perf_counter() - start:.0f} s", flush=True)
    return {"environment": environment(options.device), "busy": busy, "results": results}


def results_file(device: str) -> Path:
    """Return the results file of a device."""
    return RESULTS / ("speed.json" if device == "cpu" else "speed-cuda.json")


def read(file: Path) -> dict[str, Any]:
    """Read the results so far."""
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


if __name__ == "__main__":
    main()
