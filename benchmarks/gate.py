"""How often the regression check cries wolf, and how often it catches the wolf.

Run as ``python -m benchmarks.gate``. Small CNNs on scikit-learn's digits, trained on one part and compared on images of
the other. Every cell holds 100 comparisons: 20 trainings with 5 sets of images each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from time import perf_counter

import torch
from scipy.stats import beta, binomtest
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.digits import Data, attacked, benign, planted, recorded, threads, trained
from benchmarks.environment import environment
from benchmarks.tables import table
from lightning_gradcam import Baseline, Probe
from lightning_gradcam.intervals import bounds_of_mean
from lightning_gradcam.pipeline import prepare
from lightning_gradcam.portions import Portions
from lightning_gradcam.targets import TARGETS

ROOT = Path(__file__).parents[1]
OTHERS = 4
"""Further baselines of other trainings."""

START, END = "<!-- measured: make bench-gate -->", "<!-- end of what was measured -->"


@dataclass
class Cell:
    """Comparisons of one kind under one profile.

    Args:
        wanted: ``"pass"`` for what is benign, ``"regressed"`` for what is planted.
        statuses: What came out.
        means: Of the similarity.
    """

    wanted: str
    statuses: list[str] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def row(self) -> tuple[str, ...]:
        """In words, with the binomial (Clopper-Pearson) interval of how many regressed."""
        count = len(self.statuses)
        bad = self.statuses.count("regressed")
        interval = binomtest(bad, count).proportion_ci(0.95, "exact")
        unsure = self.statuses.count("inconclusive")
        return (f"{mean(self.means):.3f}", f"{bad} of {count}", f"{interval.low:.0%}–{interval.high:.0%}", str(unsure))


def run(seeds: int, probes: int) -> tuple[dict[str, dict[str, Cell]], dict[str, float]]:
    """All comparisons, by profile and kind, and accuracies."""
    data = Data.load()
    models = [trained(data, seed) for seed in tqdm(range(seeds), "natural training")]
    robust = [trained(data, 500 + seed, attacked) for seed in tqdm(range(max(seeds // 4, 1)), "adversarial training")]
    cells: dict[str, dict[str, Cell]] = {name: {} for name in ("same-weights", "next-checkpoint", "retrain")}
    kinds, plants = benign(data), planted(data, robust)

    def note(
        profile: str, kind: str, wanted: str, baseline: Baseline, candidate: Baseline, beside: list[Baseline]
    ) -> None:
        report = baseline.compare(candidate, profile=profile, beside=beside)
        cell = cells[profile].setdefault(kind, Cell(wanted))
        cell.statuses.append(report.status)
        cell.means.append(report.findings[0].mean)

    made: dict[tuple[str, int], nn.Sequential] = {}
    for number in tqdm(range(probes), "sets of images"):
        probe = data.probe(number)
        kept = [recorded(models[0], probe)]
        kept += [recorded(model, probe, kept[0]) for model in models[1:]]
        for seed in tqdm(range(seeds), "comparisons", leave=False):
            model, own = models[seed], kept[seed]
            others = [kept[(seed + step) % seeds] for step in range(1, OTHERS + 1)]
            for profile, makes in kinds.items():
                for kind, make in makes.items():
                    key = (kind, seed)
                    made[key] = made.get(key) or make(model, seed)
                    note(profile, kind, "pass", own, recorded(made[key], probe, own), [])
            with threads(1):
                note("same-weights", "one thread", "pass", own, recorded(model, probe, own), [])
            note("same-weights", "images one at a time", "pass", own, singly(model, probe, own), [])
            note("retrain", "another seed", "pass", own, kept[(seed + OTHERS + 1) % seeds], others)
            for kind, make in plants.items():
                key = (kind, seed)
                made[key] = made.get(key) or make(model, seed)
                candidate = recorded(made[key], probe, own)
                for profile in cells:
                    note(profile, kind, "regressed", own, candidate, others if profile == "retrain" else [])
    accuracies = {
        "natural": mean(map(data.accuracy, models)),
        "adversarially trained": mean(map(data.accuracy, robust)),
    }
    return cells, accuracies


def singly(model: nn.Sequential, probe: Probe, like: Baseline) -> Baseline:
    """Recorded with batches of one image."""
    whole = recorded(model, probe, like)
    found = Portions(prepare(model, probe, layers=list(like.about.layers), target=TARGETS["label"]), at_once=1)
    return replace(whole, explanation=found(model, probe, [TARGETS["label"]])[0])


def coverage(repeats: int = 400) -> Sequence[Sequence[str]]:
    """How often one-sided bounds hold, on skewed similarities."""
    shapes = {"Beta(8, 1), mean .89": beta(8, 1), "Beta(2, .2), mean .91": beta(2, 0.2)}
    rows = []
    for name, shape in shapes.items():
        for count in (16, 64, 128, 512):
            draws = torch.tensor(shape.rvs((repeats, count), random_state=0))
            held = [[float(low <= shape.mean()), float(high >= shape.mean())] for low, high in map(quick_bounds, draws)]
            low, high = (f"{mean(side):.1%}" for side in zip(*held, strict=True))
            rows.append((name, str(count), low, high))
    return rows


def quick_bounds(values: Tensor) -> tuple[float, float]:
    """With fewer draws, as there are many."""
    return bounds_of_mean(values, draws=2000)


def page(
    cells: dict[str, dict[str, Cell]], accuracies: dict[str, float], rows: Sequence[Sequence[str]], took: float
) -> str:
    """What stands between the marks in docs/regression.md."""
    parts = [", ".join(f"{what} {which}" for what, which in environment().items()) + f"; {took / 60:.0f} minutes."]
    parts += ["Accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in accuracies.items()) + "."]
    for profile, kinds in cells.items():
        head = (
            "",
            "mean similarity" if profile != "retrain" else "mean d",
            "regressed",
            "95 % interval",
            "inconclusive",
        )
        for wanted, title in (("pass", "benign: false alarms"), ("regressed", "planted: power")):
            lines = [(kind, *cell.row()) for kind, cell in kinds.items() if cell.wanted == wanted]
            parts += [f"### `{profile}`, {title}", table(head, lines)]
    parts += [
        "### Bounds of the mean",
        "How often one-sided 95 % bounds hold on skewed similarities, 400 simulations each:",
        table(("similarities", "images", "lower bound holds", "upper bound holds"), rows),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure, print, and write ``benchmarks/results/gate.json`` and the tables of ``docs/regression.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="trainings, at least 6")
    parser.add_argument("--probes", type=int, default=5, help="sets of images")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    start = perf_counter()
    cells, accuracies = run(options.seeds, options.probes)
    found = page(cells, accuracies, coverage(), perf_counter() - start)
    print(found)
    if not options.no_write:
        results = {p: {k: vars(c) for k, c in kinds.items()} for p, kinds in cells.items()}
        (ROOT / "benchmarks" / "results" / "gate.json").write_text(
            json.dumps(results, indent=1) + "\n", encoding="utf-8"
        )
        target = ROOT / "docs" / "regression.md"
        before, rest = target.read_text(encoding="utf-8").split(START)
        target.write_text(f"{before}{START}\n\n{found}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
