"""Measurements as tables for a reader, with the goals beside them and what was missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

FORWARD = "plain forward"
STAGES = "ours: all stages"
BARE = "forward + backward to the earliest stage"
GOALS = {"ours: explanation": 1.15, "ours: whole look": 1.3}
"""Times a plain forward, at most, by contestant."""

SEVERAL_GOAL = 1.1
"""All stages, at most, over a forward and the backward pass to the earliest of them."""

MEMORY_GOAL = 1.0
"""MiB kept for backward, at most."""

_HEAD = """# Speed and memory

Written by `make bench` (`python -m benchmarks.look`); the single rounds are in `benchmarks/results/look.json`.
"""

_HOW = """## How it was measured

{rounds} rounds after {warm_up} that do not count. In every round each contestant is called once, in an order shuffled
anew, on the same model, the same 224x224 images, the same classes and the same layer. A ratio divides by the plain
forward (`torch.inference_mode`) of the same round; shown is the median over the rounds (smallest–largest). Everything
runs on the CPU. Weights are random, BatchNorm's statistics are those of the images, the model is in eval mode. The
images are crops of a photo.

- *explanation*: what the callback computes at each look, its layer chosen before. *explain(), with its trace*: the
  function, which traces the model on two images and chooses the layer at every call. *whole look*: explain, measure,
  draw, copy, encode as JPEG, and write to TensorBoard's events file until it is flushed. The callback does not wait for
  the part *write*: a thread does it, and competes with training. The numbers logged beside the picture are not in it.
- The peers return different things: captum signed evidence at the layer's resolution, as our explanation; torchcam maps
  normalised; pytorch-grad-cam maps scaled to the images, too. Registering and removing hooks is in everybody's time.
- Bytes kept for backward are what autograd saves (`torch.autograd.graph.saved_tensors_hooks`), every storage once, the
  model's parameters and buffers aside.
"""


@dataclass(frozen=True)
class Timing:
    """One model and number of images.

    Args:
        model: Its name.
        images: How many.
        layer: Where evidence is read.
        milliseconds: Per contestant, one for each round.
        parts: Per part of a look likewise.
    """

    model: str
    images: int
    layer: str
    milliseconds: Mapping[str, Sequence[float]]
    parts: Mapping[str, Sequence[float]]

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.model}, {self.images} images"

    def ratios(self, name: str) -> list[float]:
        """To the plain forward of the same round."""
        return [own / plain for own, plain in zip(self.milliseconds[name], self.milliseconds[FORWARD], strict=True)]

    def table(self) -> str:
        """Contestants down."""
        rows = []
        for name, times in self.milliseconds.items():
            ratios, goal = self.ratios(name), GOALS.get(name)
            spread = "1" if name == FORWARD else f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            verdict = "" if goal is None else f"≤ {goal}: {'met' if median(ratios) <= goal else '**missed**'}"
            rows.append((name, f"{median(times):.0f}", spread, verdict))
        head = ("", "ms", "times a plain forward", "goal")
        return f"### {self.title}, layer `{self.layer}`\n\n{table(head, rows)}"

    def waited(self) -> float:
        """The parts of a look that the callback waits for, by their medians, over a plain forward."""
        parts = [median(times) for name, times in self.parts.items() if name != "write"]
        return sum(parts) / median(self.milliseconds[FORWARD])

    def losses(self) -> list[str]:
        """Goals that were missed, and peers that were faster."""
        found = []
        for name, goal in GOALS.items():
            ratio = median(self.ratios(name))
            if ratio > goal:
                found.append(f"{self.title}: {name.removeprefix('ours: ')} {ratio:.2f} instead of {goal}")
                if "look" in name:
                    found[-1] += f" ({self.waited():.2f} without *write*, which the callback does not wait for)"
        own = median(self.ratios("ours: explanation"))
        for name in self.milliseconds:
            if name != FORWARD and not name.startswith("ours") and median(self.ratios(name)) < own:
                found.append(f"{self.title}: {name} is faster than our explanation")
        return found


@dataclass(frozen=True)
class Memory:
    """What is kept for backward, in bytes.

    Args:
        model: Its name.
        images: How many.
        layer: Where evidence is read.
        kept: Per contestant.
        activation: Held at the layer by our explanation, besides.
        gradient: Likewise.
    """

    model: str
    images: int
    layer: str
    kept: Mapping[str, int]
    activation: int
    gradient: int

    def table(self) -> str:
        """Contestants down."""
        rows = []
        for name, count in self.kept.items():
            verdict = "met" if count <= MEMORY_GOAL * 2**20 else "**missed**"
            rows.append((name, _mebibytes(count), f"≤ {MEMORY_GOAL:g} MiB: {verdict}" if name in GOALS else ""))
        return (
            f"{self.model}, {self.images} images, layer `{self.layer}`:\n\n{table(('', 'MiB', 'goal'), rows)}\n\n"
            f"Besides, our explanation holds the layer's activation ({_mebibytes(self.activation)} MiB) and its "
            f"gradient ({_mebibytes(self.gradient)} MiB), which every Grad-CAM needs, and for the rest of the forward "
            "pass a copy of the activation."
        )

    def losses(self) -> list[str]:
        """The goal, where it was missed."""
        kept = self.kept["ours: explanation"]
        missed = kept > MEMORY_GOAL * 2**20
        return [f"{self.model}: {_mebibytes(kept)} MiB kept instead of {MEMORY_GOAL:g}"] if missed else []


@dataclass(frozen=True)
class Report:
    """All of one run.

    Args:
        environment: On what was measured.
        rounds: That count.
        warm_up: Rounds that do not.
        timings: Per model and number of images.
        methods: Every method, and several layers, of one of them.
        memory: Of one of them.
    """

    environment: Mapping[str, str]
    rounds: int
    warm_up: int
    timings: Sequence[Timing]
    methods: Timing
    memory: Memory

    def markdown(self) -> str:
        """The page."""
        parts = self.timings[0].parts
        looks = [(t.title, *(f"{median(t.parts[part]):.1f}" for part in parts)) for t in self.timings]
        sections = [
            _HEAD + "\n" + ", ".join(f"{what} {which}" for what, which in self.environment.items()) + ".",
            "## Time",
            *(timing.table() for timing in self.timings),
            "### Parts of a whole look, in ms\n\n" + table(("", *parts), looks),
            "## Methods",
            self.methods.table(),
            self._several(),
            "## Kept for backward",
            self.memory.table(),
            "## Where we lose\n\n" + self._losses(),
            _HOW.format(rounds=self.rounds, warm_up=self.warm_up),
        ]
        return "\n\n".join(sections)

    def _several(self) -> str:
        """All stages beside what they cannot do without."""
        times = self.methods.milliseconds
        ratios = [own / bare for own, bare in zip(times[STAGES], times[BARE], strict=True)]
        verdict = "met" if median(ratios) <= SEVERAL_GOAL else "**missed**"
        return (
            f"All stages take {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) times a {BARE} "
            f"(goal: ≤ {SEVERAL_GOAL}, {verdict})."
        )

    def _losses(self) -> str:
        found = [*(loss for timing in self.timings for loss in timing.losses()), *self.memory.losses()]
        said = [f"- {loss}" for loss in found] or ["- By the medians no goal was missed and no peer was faster."]
        dearest = {"whole look": "ours: whole look", "`explain()`": "ours: explain(), with its trace"}
        for what, name in dearest.items():
            worst = max(self.timings, key=lambda timing: median(timing.ratios(name)))
            ratio = median(worst.ratios(name))
            said.append(f"- The dearest {what}: {ratio:.2f} times a plain forward ({worst.title}).")
        return "\n".join(said)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.2f}"
