"""False alarms and power of the regression check.

Run as ``python -m benchmarks.gate``; ``--report`` only writes the page, from the stored numbers. Small CNNs are trained
on one part of scikit-learn's digits and compared on the other. Every cell has 100 comparisons: 20 trainings with 5 sets
of images each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import torch
from scipy.stats import beta, binomtest
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.digits import Data, attacked, benign, planted, recorded, threads, trained
from benchmarks.environment import environment
from benchmarks.tables import table
from lightning_gradcam import Baseline, Probe
from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.stability.statistics import bootstrap_bounds
from lightning_gradcam.targets import TARGETS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gate.json"
PAGE = ROOT / "docs" / "regression.md"
OTHERS = 4
"""Baselines of other trainings that `retrain` compares with."""

START, END = "<!-- measured: make bench-gate -->", "<!-- end of what was measured -->"


@dataclass
class Cell:
    """Comparisons of one kind under one profile.

    Args:
        wanted: ``"pass"`` for benign changes, ``"regressed"`` for planted ones.
        statuses: The status of each comparison.
        means: The mean similarity of each comparison.
    """

    wanted: str
    statuses: list[str] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def row(self) -> tuple[str, ...]:
        """Return the cells of a row: regressed, inconclusive, and both together, which fail a build."""
        regressed, unsure = (self.statuses.count(status) for status in ("regressed", "inconclusive"))
        told = [text for bad in (regressed, regressed + unsure) for text in share(bad, len(self.statuses))]
        return (f"{mean(self.means):.3f}", *told[:2], str(unsure), *told[2:])


def share(bad: int, count: int) -> tuple[str, str]:
    """Return a fraction in words, with its binomial (Clopper-Pearson) interval.

    >>> share(90, 100)
    ('90 of 100', '82%–95%')
    """
    interval = binomtest(bad, count).proportion_ci(0.95, "exact")
    return f"{bad} of {count}", f"{interval.low:.0%}–{interval.high:.0%}"


def run(seeds: int, probes: int) -> tuple[dict[str, dict[str, Cell]], dict[str, float]]:
    """Run all comparisons, and return them by profile and kind, with accuracies."""
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
    """Record a baseline with batches of one image."""
    whole = recorded(model, probe, like)
    found = ShardedExplainer(
        prepare(model, probe, layers=list(like.metadata.layers), target=TARGETS["label"]), chunks=Chunks(1)
    )
    return replace(whole, explanation=found(model, probe, [TARGETS["label"]])[0])


def coverage(repeats: int = 400) -> Sequence[Sequence[str]]:
    """Return how often one-sided bounds hold on skewed similarities."""
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
    """Return bootstrap bounds with fewer draws, since there are many samples."""
    return bootstrap_bounds(values, draws=2000)


def page(results: Mapping[str, Any]) -> str:
    """Return the text between the marks in docs/regression.md."""
    parts = [results["about"]]
    parts += ["Accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in results["accuracies"].items()) + "."]
    for profile, kinds in results["cells"].items():
        value = "mean d" if profile == "retrain" else "mean similarity"
        head = ("", value, "regressed", "95 % interval", "inconclusive", "does not pass", "95 % interval")
        for wanted, title in (("pass", "benign: false alarms"), ("regressed", "planted: power")):
            cells = {kind: Cell(**cell) for kind, cell in kinds.items() if cell["wanted"] == wanted}
            parts += [f"### `{profile}`, {title}", table(head, [(kind, *cell.row()) for kind, cell in cells.items()])]
    parts += [
        "### Bounds of the mean",
        "How often one-sided 95 % bounds hold on skewed similarities, with 400 simulations each:",
        table(("similarities", "images", "lower bound holds", "upper bound holds"), results["coverage"]),
    ]
    return "\n\n".join(parts)


def written(text: str, results: Mapping[str, Any]) -> str:
    """Return the page of the regression check with new tables."""
    before, rest = text.split(START)
    return f"{before}{START}\n\n{page(results)}\n\n{END}{rest.split(END)[1]}"


def measured(seeds: int, probes: int) -> dict[str, Any]:
    """Measure everything, and return plain values."""
    start = perf_counter()
    cells, accuracies = run(seeds, probes)
    rows = coverage()
    surroundings = ", ".join(f"{what} {which}" for what, which in environment().items())
    return {
        "about": f"{surroundings}; {(perf_counter() - start) / 60:.0f} minutes.",
        "accuracies": accuracies,
        "coverage": rows,
        "cells": {profile: {kind: vars(cell) for kind, cell in kinds.items()} for profile, kinds in cells.items()},
    }


def main() -> None:
    """Measure, print, and write ``benchmarks/results/gate.json`` and the tables of ``docs/regression.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="number of trainings, at least 6")
    parser.add_argument("--probes", type=int, default=5, help="number of sets of images")
    parser.add_argument("--no-write", action="store_true", help="only print")
    parser.add_argument("--report", action="store_true", help="only write the page, from the stored numbers")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text("utf-8")) if options.report else measured(options.seeds, options.probes)
    print(page(results))
    if not options.no_write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        PAGE.write_text(written(PAGE.read_text("utf-8"), results), "utf-8")


if __name__ == "__main__":
    main()
