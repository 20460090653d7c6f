"""A complete snapshot and its parts, compared with typical callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.speed.cases import prepared
from benchmarks.speed.contestants import (
    FORWARD,
    PARTS,
    SNAPSHOT,
    Contestant,
    bound,
    figure_callback,
    forward,
    installed_peers,
    take_snapshot,
    usual_callback,
)
from benchmarks.speed.estimates import compared, ratio
from benchmarks.speed.rounds import Options, take_turns
from benchmarks.tables import table

CASES = (
    ("mobilenet_v3_large", 8),
    ("mobilenet_v3_large", 16),
    ("mobilenet_v3_large", 32),
    ("resnet18", 16),
    ("resnet50", 16),
)
SECONDS = 40
USUAL, FIGURE = "usual callback", "matplotlib figure"
GOAL, USUAL_GOAL = 1.2, 3.0

HOW = """*snapshot*: explain, measure, draw, copy, encode as JPEG, and write to TensorBoard's events file until it is
flushed. The callback does not wait for *write*: a thread does it and competes with training, since TensorBoard
computes a checksum of every byte in Python. *without write* excludes it. Logged numbers are not included. *usual
callback*: pytorch-grad-cam, its `show_cam_on_image`, and one `add_image` per image. *matplotlib figure*: captum, the
cheapest explanation, and one figure of all images with `add_figure`.

What a snapshot costs beyond its explanation depends on the figure, not on the model, so it matters most for small
models: about a hundred small operations that measure and draw, a JPEG, and the checksum of its bytes."""


def measure(options: Options) -> list[dict[str, Any]]:
    """Measure every case."""
    found, peers = [], installed_peers()
    for name, images in CASES[:1] if options.quick else CASES:
        print(f"  {name}, {images} images", flush=True)
        contestants: dict[str, Contestant] = {FORWARD: forward, SNAPSHOT: take_snapshot}
        contestants |= {USUAL: usual_callback} if "pytorch-grad-cam" in peers else {}
        contestants |= {FIGURE: figure_callback} if "captum" in peers else {}
        with prepared(name, images, device=options.device) as case:
            turns = take_turns(bound(case, contestants), FORWARD, options, SECONDS)
            parts = dict(zip(PARTS, map(list, zip(*case.parts[1:], strict=True)), strict=True))
        found.append({"model": name, "images": images, **turns, "parts": parts})
    return found


def page(found: list[dict[str, Any]]) -> str:
    """Return the section."""
    whole, parts = [], []
    for one in found:
        times = one["milliseconds"]
        ratios = [str(compared(one, n, FORWARD)) if n in times else "–" for n in (SNAPSHOT, USUAL, FIGURE)]
        whole.append((_title(one), f"{median(times[FORWARD]):.0f}", ratios[0], f"{_waited(one):.2f}", *ratios[1:]))
        parts.append((_title(one), *(f"{median(times):.1f}" for times in one["parts"].values())))
    head = ("times a plain forward pass", "forward pass, ms", "snapshot", "without write", USUAL, FIGURE)
    return "\n\n".join([table(head, whole), "The parts of a snapshot, in ms:", table(("", *PARTS), parts), HOW])


def _title(one: Mapping[str, Any]) -> str:
    return f"{one['model']}, {one['images']} images"


def _waited(one: Mapping[str, Any]) -> float:
    """Return what the callback waits for, divided by a plain forward pass, over rounds."""
    parts = [part for name, part in one["parts"].items() if name != "write"]
    return ratio([sum(each) for each in zip(*parts, strict=True)], one["pace"][SNAPSHOT]).value


def losses(found: list[dict[str, Any]]) -> list[str]:
    """List missed goals."""
    said = []
    for one in found:
        own = compared(one, SNAPSHOT, FORWARD)
        if own.value > GOAL:
            ours = {name: median(part) for name, part in one["parts"].items()}
            dearest = ", ".join(f"{name} {value:.0f} ms" for name, value in ours.items())
            said.append(f"{_title(one)}: a snapshot takes {own} times a forward pass; the goal is {GOAL} ({dearest})")
        if USUAL in one["milliseconds"] and (beside := compared(one, USUAL, SNAPSHOT)).value < USUAL_GOAL:
            said.append(f"{_title(one)}: the usual callback takes {beside} times as long; the goal is {USUAL_GOAL:g}")
    return said
