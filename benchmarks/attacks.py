"""The cost of an attack, compared with its minimum and with torchattacks.

Run as ``python -m benchmarks.attacks``. All contestants take turns within one run; ratios are within one round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from benchmarks.environment import environment
from benchmarks.speed.cases import photos, settle
from benchmarks.tables import table
from lightning_gradcam.attacks import FGSM, PGD

ROOT = Path(__file__).parents[1]
EPS, STEPS, GOAL, WARM_UP = 8 / 255, 10, 1.15, 2
CASES = (("resnet18", 8), ("vit_b_32", 4))

_PAGE = """# Cost of attacks

`make bench-attacks` (`python -m benchmarks.attacks`) writes this page; all rounds are in
`benchmarks/results/attacks.json`.

{environment}.

{tables}

{rounds} rounds after {warm_up} warm-up rounds. Each round calls every contestant once, in a new random order, on the
same model in eval mode with random weights and the same images of 224x224 pixels. A ratio divides by the floor of the
same round; the table shows the median (smallest–largest). The *floor* is {steps} times a forward pass and the backward
pass to the images, and nothing else, with all parameters but matrices frozen: frozen matrices are slower on the CPU,
because PyTorch then multiplies batch by batch. The goal is at most {goal} times the floor. `PGD` freezes in the same
way and leaves the model unchanged. torchattacks does not freeze parameters, so autograd saves what their gradients
would need; here it is as fast. Everything runs on the CPU.
"""

Contestant = Callable[[nn.Module, Tensor, Tensor], Tensor]


def floor(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Run as many forward passes, and backward passes to the images, as PGD has steps."""
    wanted = [p.requires_grad for p in model.parameters()]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim == 2)
    gradient = images
    for _ in range(STEPS):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels), leaf)
    for parameter, requires_grad in zip(model.parameters(), wanted, strict=True):
        parameter.requires_grad_(requires_grad)
    return gradient


def peer(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Attack with the PGD of torchattacks, with the same number of steps."""
    import torchattacks

    attacked: Tensor = torchattacks.PGD(model, eps=EPS, alpha=EPS / 4, steps=STEPS)(images, labels)
    return attacked


CONTESTANTS: dict[str, Contestant] = {
    "floor": floor,
    "ours: PGD": PGD(EPS, STEPS, EPS / 4),
    'ours: PGD, keep="best"': PGD(EPS, STEPS, EPS / 4, keep="best"),
    "torchattacks: PGD": peer,
    "ours: FGSM": FGSM(EPS),
}


def measure(name: str, count: int, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds per contestant and round.

    Args:
        name: A torchvision model.
        count: The number of images.
        rounds: The number of rounds.
    """
    torch.manual_seed(0)
    images, model = photos(count), get_model(name, weights=None)
    settle(model, images)
    labels = model(images).argmax(1)
    found: dict[str, list[float]] = {each: [] for each in CONTESTANTS}
    order, shuffler = list(CONTESTANTS), random.Random(0)
    for turn in range(-WARM_UP, rounds):
        shuffler.shuffle(order)
        for each in order:
            start = perf_counter()
            CONTESTANTS[each](model, images, labels)
            if turn >= 0:
                found[each].append(1000 * (perf_counter() - start))
    return found


def section(title: str, times: dict[str, list[float]]) -> str:
    """Return the table of one model."""
    rows = []
    for each, own in times.items():
        ratios = [a / b for a, b in zip(own, times["floor"], strict=True)]
        spread = "1" if each == "floor" else f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        goal = f"≤ {GOAL}: {'met' if median(ratios) <= GOAL else '**missed**'}" if each == "ours: PGD" else ""
        rows.append((each, f"{median(own):.0f}", spread, goal))
    return f"### {title}\n\n{table(('', 'ms', 'times the floor', 'goal'), rows)}"


def main() -> None:
    """Measure, print, and write ``benchmarks/results/attacks.json`` and ``docs/attacks.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=7, help=f"rounds, after {WARM_UP} warm-up rounds")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(os.cpu_count() or 1)
    results = {}
    for name, count in CASES:
        print(f"{name}, {count} images: {WARM_UP} + {rounds} rounds", flush=True)
        results[f"{name}, {count} images"] = measure(name, count, rounds)
    tables = [section(key, times) for key, times in results.items()]
    about = ", ".join(f"{what} {which}" for what, which in environment().items())
    page = _PAGE.format(
        environment=about, tables="\n\n".join(tables), rounds=rounds, warm_up=WARM_UP, steps=STEPS, goal=GOAL
    )
    print(page)
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    (folder / "attacks.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs" / "attacks.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
