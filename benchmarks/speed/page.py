"""The page with all measurements and missed goals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from benchmarks.speed import absolute, explanation, growth, methods, snapshots, training
from benchmarks.speed.contestants import FORWARD, OURS, SNAPSHOT
from benchmarks.speed.estimates import compared, ratio
from benchmarks.speed.growth import PEER
from benchmarks.speed.rounds import Options

_HEAD = """# Speed and memory

`make bench` (`python -m benchmarks.speed`) writes this page; all rounds are in `benchmarks/results/speed.json`.

Each round calls every contestant once, in a new random order, on the same model, images, classes and layer. A warm-up
round is discarded. The speed of a machine changes from second to second, so a plain forward pass is timed before and
after each contestant, and the time of the contestant is divided by their mean. (Each timed forward pass follows an
untimed one, so that caches and memory are in the same state for all.) Contestants are compared by these ratios within
each round. Tables show the median over the rounds and, in parentheses, its 95 % confidence interval, computed from
order statistics without assumptions about the distribution of times. Plain forward passes run in
`torch.inference_mode`. Weights are random, BatchNorm statistics come from the images, models are in eval mode, and
images are crops of a photo. Every contestant registers and removes its hooks within its time.
"""

_NO_GPU = """Not measured yet, for lack of a GPU. `python -m benchmarks.speed --device cuda` measures all of the above
and this section (its code has only run on a CPU): ResNet-50 and ViT-B/16 with 16, 64 and 256 images in float32 and
bfloat16 in milliseconds, memory compared with a forward pass, how long a snapshot of 16 images blocks the training
loop, and a trace of the loop.

A figure is copied to the host synchronously and encoded in the calling thread. An asynchronous copy into pinned
memory with encoding in another thread is not implemented: only TensorBoard's logger is known to be thread-safe, and
the callback would have to wait for a pending figure at each exception, checkpoint and end of a run, only to save the
milliseconds of *copy, encode* above."""


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Args:
        title: The heading.
        measure: Measures, and returns plain values for the results file.
        page: Formats the results as Markdown.
        losses: Lists the goals that the results miss, one sentence each.
    """

    title: str
    measure: Callable[[Options], Any]
    page: Callable[[Any], str]
    losses: Callable[[Any], list[str]]


SECTIONS: Mapping[str, Section] = {
    "explanation": Section("An explanation", explanation.measure, explanation.page, explanation.losses),
    "snapshots": Section("A snapshot", snapshots.measure, snapshots.page, snapshots.losses),
    "training": Section("A training run", training.measure, training.page, training.losses),
    "growth": Section("Growth", growth.measure, growth.page, growth.losses),
    "methods": Section("Methods", methods.measure, methods.page, methods.losses),
    "absolute": Section("On a GPU", absolute.measure, absolute.page, absolute.losses),
}
ON_CPU = tuple(name for name in SECTIONS if name != "absolute")


def markdown(results: Mapping[str, Any], on_gpu: Mapping[str, Any]) -> str:
    """Return the page, from results on the CPU and, if there are any, on a GPU."""
    parts, missed = [_HEAD.rstrip()], []
    for suffix, measured in (("", results), (" (GPU)", on_gpu)):
        environment = ""
        for name, section in SECTIONS.items():
            if name not in measured:
                continue
            values, facts = measured[name]["results"], _describe_environment(measured[name])
            title = section.title if name == "absolute" else f"{section.title}{suffix}"
            parts.append(f"## {title}\n\n" + (f"{facts}\n\n" if facts != environment else "") + section.page(values))
            environment = facts
            missed += [f"- {title}: {loss}." for loss in section.losses(values)]
    if not on_gpu:
        parts.append(f"## {SECTIONS['absolute'].title}\n\n{_NO_GPU}")
    lost = "\n".join(missed) or "No goal was missed, and no peer was faster."
    parts.append(f"## Missed goals\n\n{lost}")
    return "\n\n".join(parts) + "\n"


def summary(on_cpu: Mapping[str, Any]) -> str:
    """Return the sentences about speed in the README."""
    models, epochs = on_cpu["explanation"]["results"]["float32"].values(), on_cpu["training"]["results"]["digits"]
    shots = {case["model"]: case for case in on_cpu["snapshots"]["results"] if case["images"] == 16}
    ours = [compared(case, OURS, FORWARD).value for case in models]
    theirs = [compared(case, PEER, FORWARD).value for case in models if PEER in case["milliseconds"]]
    big, small = (compared(shots[name], SNAPSHOT, FORWARD).value for name in ("resnet50", "mobilenet_v3_large"))
    with_it, without = ([median(run["epochs"]) for run in epochs[which]] for which in ("with", "without"))
    return (
        f"on {on_cpu['explanation']['environment']['cores']} CPU cores, an explanation takes {mean(ours):.2f} times as "
        f"long as a plain forward pass on average over {len(ours)} architectures, and at most {max(ours):.2f} times as "
        f"long ({PEER}: {min(theirs):.1f} to {max(theirs):.1f} times). A snapshot of 16 images, including its figure, "
        f"takes {big:.2f} times as long as a forward pass of ResNet-50, and {small:.2f} times as long as one of "
        f"MobileNetV3. An epoch of training on the digits takes {ratio(with_it, without).value:.2f} times as long as "
        "one without the callback."
    )


def _describe_environment(section: Mapping[str, Any]) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in section["environment"].items())
    busy = " **Other processes were using this machine.**" if section["busy"] else ""
    return f"{facts}.{busy}"
