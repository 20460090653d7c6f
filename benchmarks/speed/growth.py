"""Growth of time and memory with images, resolution, layers, classes, and the number of snapshots."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from benchmarks.speed.cases import Case, photos, prepared
from benchmarks.speed.contestants import (
    FORWARD,
    OURS,
    Contestant,
    bound,
    explanation,
    forward,
    installed_peers,
    pytorch_grad_cam as grad_cam,
)
from benchmarks.speed.estimates import compared, slope
from benchmarks.speed.memory import peak
from benchmarks.speed.methods import BARE, bare
from benchmarks.speed.rounds import Options, clocked, take_turns, undisturbed
from benchmarks.tables import table
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.loggers import log_image
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets import TARGETS, class_target

MODEL, SECONDS, SNAPSHOTS = "resnet18", 20, 1000
STAGES = ("layer4", "layer3", "layer2", "layer1")
AXES: dict[str, tuple[int, ...]] = {
    "images": (1, 4, 16, 64, 256),
    "pixels": (32, 64, 128, 256),
    "layers": (1, 2, 3, 4),
    "classes": (1, 2, 5, 10),
}
ABOUT = {
    "images": "of 64x64 pixels",
    "pixels": "of height and width, 16 images",
    "layers": "in one explanation, from the last stage to the first; 16 images of 64x64 pixels",
    "classes": "per image, each with its own map, from one forward pass; 16 images of 64x64 pixels",
}
PEER = "pytorch-grad-cam"
SEVERAL_GOAL = 1.1

HOW = f"""All rows are for {MODEL}. A slope is that of a line through the medians in a log-log plot: 1 is proportional,
0 is flat, and 2 over the side length is proportional to the number of pixels. In parentheses: its 95 % interval, from
bootstrapping the rounds. Slopes use the last three values, since the smallest cases cost the same regardless of their
size. The minimum for several layers is a forward pass and the gradient from the score to the earliest of them
({BARE}). The {SNAPSHOTS:,} snapshots are those of a CNN with two convolutions and 16 images of 64x64 pixels, drawn and
written to TensorBoard, in a separate process; memory is that of the process, without mapped files."""


def measure(options: Options) -> dict[str, Any]:
    """Measure every axis, and many snapshots."""
    found: dict[str, Any] = {}
    for axis, values in AXES.items():
        found[axis] = {}
        for value in options.some(values):
            print(f"  {value} {axis}", flush=True)
            found[axis][str(value)] = _one(axis, value, options)
    print("  snapshots", flush=True)
    count = 20 if options.quick else SNAPSHOTS
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:  # so that its memory is that of snapshots only
        snapshots = alone.submit(_measure_snapshots, count, options, torch.get_num_threads()).result()
    return {"axes": found, "snapshots": snapshots}


def _one(axis: str, value: int, options: Options) -> dict[str, Any]:
    images, pixels = value if axis == "images" else 16, value if axis == "pixels" else 64
    with prepared(MODEL, images, pixels, device=options.device) as case:
        contestants = _contestants(axis, value, case)
        if PEER not in installed_peers():
            contestants.pop(PEER)
        runs = bound(case, contestants)
        for run in runs.values():
            run()
        memory = {name: peak(run, options.device) for name, run in runs.items()}
        return {**take_turns(runs, FORWARD, options, SECONDS), "peak": memory}


def _contestants(axis: str, value: int, case: Case) -> dict[str, Contestant]:
    if axis == "layers":
        layers = STAGES[:value]
        plan = prepare(case.model, case.probe, target=case.monitor.target, layers=list(layers))
        return {
            FORWARD: forward,
            BARE: partial(bare, earliest=layers[-1]),
            OURS: lambda case: plan(case.model, case.probe, [case.monitor.target]),
            PEER: partial(grad_cam, modules=layers),
        }
    if axis == "classes":
        targets = [class_target(one) for one in range(value)]
        return {
            FORWARD: forward,
            OURS: lambda case: case.plan(case.model, case.probe, targets),
            PEER: lambda case: [grad_cam(case, one=one) for one in range(value)],
        }
    return {FORWARD: forward, OURS: explanation, PEER: grad_cam}


def _measure_snapshots(count: int, options: Options, threads: int) -> dict[str, list[float]]:
    """Return the milliseconds of each snapshot and of a third one next to it, and MiB after every twentieth."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU())
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).to(options.device).eval()
    target, probe = TARGETS["label"], Probe(photos(16, 64).to(options.device), labels=torch.arange(16) % 10)
    portions = ShardedExplainer(prepare(model, probe, target=target))
    monitor, young = (ProbeMonitor(probe, portions, target, DisplayConfig()) for _ in range(2))
    found: dict[str, list[float]] = {"milliseconds": [], "pace": [], "memory": []}
    with TemporaryDirectory() as folder:
        loggers = {each: TensorBoardLogger(folder, name) for each, name in ((monitor, "old"), (young, "young"))}

        def one(each: ProbeMonitor, turn: int) -> None:
            for key, picture in each.take_snapshot(model, f"snapshot {turn}").figures.items():
                log_image([loggers[each]], f"gradcam/{key}", picture, turn)
            loggers[each].experiment.flush()

        for turn in range(2):
            one(young, turn)
        early = young.state_dict()
        with undisturbed():
            for turn in range(count):
                young.load_state_dict(early)
                found["pace"].append(clocked(partial(one, young, turn), options.device))
                found["milliseconds"].append(clocked(partial(one, monitor, turn), options.device))
                if (turn + 1) % max(count // 20, 1) == 0:
                    found["memory"].append(_resident())
        for logger in loggers.values():
            logger.finalize("success")
    return found


def _resident() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return sum(int(kib) for kib in re.findall(r"(?:RssAnon|VmSwap):\s+(\d+)", status.read_text())) / 1024


def page(found: Mapping[str, Any]) -> str:
    """Return the section."""
    parts = []
    for axis, by_value in found["axes"].items():
        rows = [_row(value, one) for value, one in by_value.items()]
        head = (axis, "forward pass, ms", OURS, PEER, "times the minimum", "peak, MiB: ours", f"peak: {PEER}")
        keep = [i for i in range(len(head)) if i != 4 or axis == "layers"]
        shown = [[row[i] for i in keep] for row in rows]
        parts.append(f"### {axis.capitalize()}, {ABOUT[axis]}\n\n{table([head[i] for i in keep], shown)}")
        parts.append("Slopes: " + ", ".join(f"{name} {each}" for name, each in slopes(by_value).items()) + ".")
    return "\n\n".join([*parts, _describe_snapshots(found["snapshots"]), HOW])


def _row(value: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    times, memory = one["milliseconds"], one["peak"]

    def cell(name: str, show: Callable[[str], str]) -> str:
        return show(name) if name in times else "–"

    def over(name: str) -> str:
        return cell(name, lambda name: str(compared(one, name, FORWARD)))

    def mebibytes(name: str) -> str:
        return cell(name, lambda name: f"{memory[name] / 2**20:.1f}")

    least = str(compared(one, OURS, BARE)) if BARE in times else ""
    return value, f"{median(times[FORWARD]):.1f}", over(OURS), over(PEER), least, mebibytes(OURS), mebibytes(PEER)


def slopes(by_value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the slopes of the times of each contestant, and of our peak memory, over an axis."""
    by_value = dict(list(by_value.items())[-3:])
    names = next(iter(by_value.values()))["milliseconds"]
    found: dict[str, Any] = {
        name: slope({float(v): one["milliseconds"][name] for v, one in by_value.items()}, logarithmic=True)
        for name in names
    }
    held = {float(v): [float(one["peak"][OURS])] for v, one in by_value.items()}
    return {**found, "our peak memory": f"{slope(held, logarithmic=True).value:.2f}"}


def _describe_snapshots(snapshots: Mapping[str, list[float]]) -> str:
    times, memory = snapshots["milliseconds"], snapshots["memory"]
    tenth = max(len(times) // 10, 1)
    paced = [old / young for old, young in zip(times, snapshots["pace"], strict=True)]
    by_tenth = {float(i): paced[i * tenth : (i + 1) * tenth] for i in range(len(paced) // tenth)}
    trend = slope(by_tenth, logarithmic=False)
    share = [100 * each * 10 / median(paced) for each in (trend.value, trend.low, trend.high)]
    return (
        f"### {len(times):,} snapshots\n\nA snapshot takes {median(times):.1f} ms (median). From the first to the last "
        f"one, it changes by {share[0]:.1f} % ({share[1]:.1f} to {share[2]:.1f}), by the slope over tenths of its "
        "ratio to the third snapshot of another run, taken right before it. Memory: "
        f"{memory[len(memory) // 10]:.1f} MiB after a tenth of them, {memory[-1]:.1f} MiB at the end."
    )


def losses(found: Mapping[str, Any]) -> list[str]:
    """List missed goals."""
    said = []
    for value, one in found["axes"]["layers"].items():
        beside = compared(one, OURS, BARE)
        if beside.value > SEVERAL_GOAL:
            said.append(f"{value} layers take {beside} times the minimum; the goal is {SEVERAL_GOAL}")
    ours = slopes(found["axes"]["images"])[OURS]
    if ours.low > 1.05:
        said.append(f"time grows faster than the number of images: slope {ours}")
    return said
