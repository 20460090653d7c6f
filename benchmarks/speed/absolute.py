"""Milliseconds and memory of large batches on an accelerator, and how long a snapshot blocks the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.environment import RESULTS
from benchmarks.speed.cases import Case, prepared
from benchmarks.speed.contestants import FORWARD, OURS, bound, explanation, forward
from benchmarks.speed.estimates import compared, estimated
from benchmarks.speed.memory import peak
from benchmarks.speed.rounds import Options, clocked, take_turns, wait
from benchmarks.tables import table
from lightning_gradcam.loggers import log_image

MODELS, IMAGES, SECONDS = ("resnet50", "vit_b_16"), (16, 64, 256), 5
DTYPES = (torch.float32, torch.bfloat16)
RATIO_GOAL, HELD_GOAL, PEAK_GOAL = 1.1, 25.0, 1.1
STEPS, BATCH = 4, 32
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
TO_HOST = "Memcpy DtoH"

HOW = f"""*peak* is the most that PyTorch's allocator held beyond what it held before, as a multiple of a forward
pass. *blocked*: how long a snapshot of 16 images blocks the training loop; afterwards the device may still be busy,
while the figure is on the host and in TensorBoard's thread. The trace covers {STEPS} steps of ResNet-50 with {BATCH}
images, a snapshot, and {STEPS} more steps."""


def measure(options: Options) -> dict[str, Any]:
    """Measure the table, snapshots of 16 images, and the trace."""
    found: dict[str, Any] = {"table": [], "snapshots": {}}
    for name in MODELS:
        for dtype in DTYPES[:1] if options.quick else DTYPES:
            for images in (2,) if options.quick else IMAGES:
                print(f"  {name}, {dtype}, {images} images", flush=True)
                found["table"].append(_one(name, images, dtype, options))
        with prepared(name, 2 if options.quick else 16, device=options.device) as case:
            _take_snapshot(case)
            found["snapshots"][name] = [
                clocked(lambda: _take_snapshot(case), options.device) for _ in range(2 if options.quick else 20)
            ]
    return {**found, "trace": _trace(options)}


def _one(name: str, images: int, dtype: torch.dtype, options: Options) -> dict[str, Any]:
    with prepared(name, images, device=options.device, dtype=dtype) as case:
        runs = bound(case, {FORWARD: forward, OURS: explanation})
        for run in runs.values():
            run()  # so that what libraries cache is already there
        memory = {each: peak(run, options.device) for each, run in runs.items()}
        turns = take_turns(runs, FORWARD, options, SECONDS)
    return {"model": name, "dtype": str(dtype)[6:], "images": images, **turns, "peak": memory}


def _take_snapshot(case: Case) -> None:
    for key, picture in case.monitor.take_snapshot(case.model, "epoch 1").figures.items():
        log_image([case.logger], f"gradcam/{key}", picture, 1)


def _trace(options: Options) -> dict[str, Any]:
    """Return what the profiler recorded of a snapshot between steps; the complete trace is next to the results."""
    print("  trace", flush=True)
    batch = torch.rand(2 if options.quick else BATCH, 3, 224, 224, device=options.device)
    labels = torch.arange(len(batch), device=options.device) % 10
    with prepared("resnet50", 2 if options.quick else 16, device=options.device) as case:
        optimizer = torch.optim.SGD(case.model.parameters(), lr=0.01)

        def steps() -> None:
            for _ in range(1 if options.quick else STEPS):
                optimizer.zero_grad(set_to_none=True)
                loss = nn.functional.cross_entropy(case.model(batch), labels)
                torch.autograd.backward([loss])
                optimizer.step()

        steps()
        _take_snapshot(case)
        activities = [ProfilerActivity.CPU]
        if options.device.startswith("cuda"):
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as seen:
            steps()
            with record_function("snapshot"):
                _take_snapshot(case)
            steps()
            wait(options.device)
    events = seen.events() or []
    [span] = [e.time_range for e in events if e.name == "snapshot" and "CPU" in str(e.device_type)]
    inside = [e.name for e in events if span.start <= e.time_range.start <= span.end]
    file = ""
    if options.device.startswith("cuda") and not options.quick:
        file = "trace-cuda.json.gz"
        seen.export_chrome_trace(str(Path(RESULTS, file)))
    waits = {name: inside.count(name) for name in WAITING if name in inside}
    return {
        "held": span.elapsed_us() / 1000,
        "to_host": sum(TO_HOST in e for e in inside),
        "waits": waits,
        "file": file,
    }


def page(found: Mapping[str, Any]) -> str:
    """Return the section."""
    rows = []
    for one in found["table"]:
        times, memory = one["milliseconds"], one["peak"]
        numbers = (
            f"{median(times[FORWARD]):.2f}",
            f"{median(times[OURS]):.2f}",
            str(compared(one, OURS, FORWARD)),
        )
        shares = (f"{memory[FORWARD] / 2**20:.0f}", f"{memory[OURS] / memory[FORWARD]:.2f}")
        rows.append((f"{one['model']}, {one['dtype']}, {one['images']} images", *numbers, *shares))
    head = (
        "",
        "forward pass, ms",
        "explanation, ms",
        "times a forward pass",
        "peak of a forward pass, MiB",
        "times that peak",
    )
    times_by_model = "; ".join(f"{name} {estimated(times)} ms" for name, times in found["snapshots"].items())
    trace = found["trace"]
    waits = ", ".join(f"{count} {name}" for name, count in trace["waits"].items()) or "none"
    said = (
        f"A snapshot of 16 images blocks the loop for: {times_by_model} (goal: at most {HELD_GOAL:g}). In the trace it "
        f"took {trace['held']:.1f} ms on the host, with {trace['to_host']} copies to the host and these waits: {waits}."
        + (f" The complete trace: `benchmarks/results/{trace['file']}`." if trace["file"] else "")
    )
    return "\n\n".join([table(head, rows), said, HOW])


def losses(found: Mapping[str, Any]) -> list[str]:
    """List missed goals."""
    said = []
    for one in found["table"]:
        memory = one["peak"]
        title = f"{one['model']}, {one['dtype']}, {one['images']} images"
        over, more = compared(one, OURS, FORWARD), memory[OURS] / memory[FORWARD]
        if over.value > RATIO_GOAL:
            said.append(f"{title}: an explanation takes {over} times a forward pass; the goal is {RATIO_GOAL}")
        if more > PEAK_GOAL:
            said.append(f"{title}: peak memory is {more:.2f} times that of a forward pass; the goal is {PEAK_GOAL}")
    for name, times in found["snapshots"].items():
        if median(times) > HELD_GOAL:
            said.append(f"{name}: a snapshot blocks the loop for {median(times):.0f} ms; the goal is {HELD_GOAL:g}")
    return said
