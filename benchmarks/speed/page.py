"""All measurements as one page, with what was missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from benchmarks.speed import absolute, explanation, growth, looks, methods, training
from benchmarks.speed.contestants import FORWARD, LOOK, OURS
from benchmarks.speed.estimates import compared, ratio
from benchmarks.speed.growth import PEER
from benchmarks.speed.rounds import Options

_HEAD = """# Speed and memory

Written by `make bench` (`python -m benchmarks.speed`); the single rounds are in `benchmarks/results/speed.json`.

In every round each contestant is called once, in an order shuffled anew, on the same model, images, classes and
layer, after a round that does not count. Since a machine's speed changes from second to second, a plain forward is
called before and after each of them (and before each of these one that is not clocked, so that all find caches and
memory alike), and their mean is what its time is divided by; contestants are compared by these ratios, of the same
round each. Told is the median over the rounds, and in brackets between what it lies with 95 % (by the order of the
rounds: no assumption about how times are distributed). The plain forward is that of `torch.inference_mode`. Weights
are random, BatchNorm's statistics are those of the images, models are in eval mode, images are crops of a photo.
Registering and removing hooks is in everybody's time.
"""

_NO_GPU = """Not measured yet: no GPU was at hand. `python -m benchmarks.speed --device cuda` measures all of the
above and this section there (its code has run on a CPU only), and fills it: ResNet-50 and ViT-B/16 at 16, 64 and 256
images in float32 and bfloat16 in milliseconds, memory allocated beside that of a forward, how long a look of 16
images holds up the loop that trains, and a trace of the loop.

The picture goes to the host by a plain copy, and is encoded in the calling thread. A copy by a stream of its own into
pinned memory, encoded by a thread, is left out: of the loggers only TensorBoard's is known to be safe in another
thread, and a picture in flight would have to be waited for at each exception, checkpoint and end of a run, to save
the milliseconds of *copy, encode* above."""


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Args:
        title: Its heading.
        measure: What is written to the results.
        page: The results for a reader.
        losses: Sentences of what they fall short of.
    """

    title: str
    measure: Callable[[Options], Any]
    page: Callable[[Any], str]
    losses: Callable[[Any], list[str]]


SECTIONS: Mapping[str, Section] = {
    "explanation": Section("An explanation", explanation.measure, explanation.page, explanation.losses),
    "looks": Section("A look", looks.measure, looks.page, looks.losses),
    "training": Section("A training run", training.measure, training.page, training.losses),
    "growth": Section("Growth", growth.measure, growth.page, growth.losses),
    "methods": Section("Methods", methods.measure, methods.page, methods.losses),
    "absolute": Section("On a GPU", absolute.measure, absolute.page, absolute.losses),
}
ON_CPU = tuple(name for name in SECTIONS if name != "absolute")


def markdown(results: Mapping[str, Any], on_gpu: Mapping[str, Any]) -> str:
    """The page, from what was measured on the CPU, and on a GPU if it was."""
    parts, missed = [_HEAD.rstrip()], []
    for where, measured in (("", results), (" (GPU)", on_gpu)):
        about = ""
        for name, section in SECTIONS.items():
            if name not in measured:
                continue
            found, facts = measured[name]["found"], _about(measured[name])
            title = section.title if name == "absolute" else f"{section.title}{where}"
            parts.append(f"## {title}\n\n" + (f"{facts}\n\n" if facts != about else "") + section.page(found))
            about = facts
            missed += [f"- {title}: {loss}." for loss in section.losses(found)]
    if not on_gpu:
        parts.append(f"## {SECTIONS['absolute'].title}\n\n{_NO_GPU}")
    lost = "\n".join(missed) or "No goal was missed, and no peer was faster."
    parts.append(f"## Where we lose\n\n{lost}")
    return "\n\n".join(parts) + "\n"


def summary(on_cpu: Mapping[str, Any]) -> str:
    """What the README says of it, in one line."""
    models, epochs = on_cpu["explanation"]["found"]["float32"].values(), on_cpu["training"]["found"]["digits"]
    looks = {one["model"]: one for one in on_cpu["looks"]["found"] if one["images"] == 16}
    ours = [compared(one, OURS, FORWARD).value for one in models]
    theirs = [compared(one, PEER, FORWARD).value for one in models if PEER in one["milliseconds"]]
    big, small = (compared(looks[name], LOOK, FORWARD).value for name in ("resnet50", "mobilenet_v3_large"))
    with_it, without = ([median(run["epochs"]) for run in epochs[which]] for which in ("with", "without"))
    return (
        f"on {on_cpu['explanation']['environment']['cores']} CPU cores, an explanation takes {mean(ours):.2f} times a "
        f"plain forward pass on average over {len(ours)} architectures, and {max(ours):.2f} at most ({PEER}: "
        f"{min(theirs):.1f} to {max(theirs):.1f}); a look at 16 images, picture and all, {big:.2f} times a forward "
        f"pass of a ResNet-50 and {small:.2f} of a MobileNetV3; an epoch of the digits takes "
        f"{ratio(with_it, without).value:.2f} times as long as one without."
    )


def _about(one: Mapping[str, Any]) -> str:
    facts = ", ".join(f"{what} {which}" for what, which in one["environment"].items())
    busy = " **Others were using this machine.**" if one["busy"] else ""
    return f"{facts}.{busy}"
