"""How long explanations, looks and training runs take, and what memory, beside a plain forward pass and the peers.

Run as ``python -m benchmarks.speed``. Absolute times hold for the machine only; ratios are of one round.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # before PyTorch is loaded: its profiler talks

import torch

from benchmarks.environment import RESULTS, ROOT, environment, others
from benchmarks.speed.page import ON_CPU, SECTIONS, markdown
from benchmarks.speed.rounds import Options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``benchmarks/results/speed.json`` and ``docs/benchmarks.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=main.__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; on a CPU by default all but absolute")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs; nothing is written")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies every time budget")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of PyTorch; by default all cores")
    parser.add_argument("--rounds", type=int, default=7, help="that count, at least")
    parser.add_argument("--page", action="store_true", help="only write the page, from the results that are there")
    given = parser.parse_args(arguments)
    sections = given.sections or (ON_CPU if given.device == "cpu" else tuple(SECTIONS))
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"expected sections of {', '.join(SECTIONS)}, but got {', '.join(unknown)}")
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
    """One section's results, with when and where."""
    busy = others() > 0.25
    print(f"{name}{' (others are using this machine: do not trust the times)' if busy else ''}", flush=True)
    start = perf_counter()
    found = SECTIONS[name].measure(options)
    print(f"  {perf_counter() - start:.0f} s", flush=True)
    return {"environment": environment(options.device), "busy": busy, "found": found}


def results_file(device: str) -> Path:
    """Where what was measured on a CPU, or on a GPU, is kept."""
    return RESULTS / ("speed.json" if device == "cpu" else "speed-cuda.json")


def read(file: Path) -> dict[str, Any]:
    """The results so far."""
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


if __name__ == "__main__":
    main()
