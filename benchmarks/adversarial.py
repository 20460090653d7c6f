"""Ten runs each of natural and adversarial training on digits: `python -m benchmarks.adversarial`.

Runs ``examples/adversarial.py --seeds 10``, stores its numbers in ``benchmarks/results/adversarial.json``, and writes
tables of them into ``docs/adversarial.md``. ``--report`` only writes the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from scipy.stats import t

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "adversarial.json"
PAGE = ROOT / "docs" / "adversarial.md"
PICTURE = ROOT / "docs" / "images" / "adversarial.png"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
SEEDS = 10
"""Seeds 0 to 9, fixed in advance."""

COLUMNS = {
    "clean": "clean accuracy",
    "pgd20": "PGD-20 accuracy",
    "similarity": "`adv_similarity`",
    "similarity_held": "`adv_similarity_held`",
    "degenerate": "degenerate maps",
    "classmates": "two images of a class",
    "others": "any two images",
    "margin": "margin",
}
"""Columns; the margin is how much more an attacked map resembles its clean map than the map of a classmate."""
PAIRS = (("PGD", "natural"), ("TRADES", "PGD"), ("consistency", "PGD"))

Row = Mapping[str, Any]


def paired_interval(after: Sequence[float], before: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of the differences and its 95 % interval, by Student's t.

    >>> [round(x, 3) for x in paired_interval([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])]
    [0.2, -0.048, 0.448]
    """
    differences = [a - b for a, b in zip(after, before, strict=True)]
    mean, error = fmean(differences), stdev(differences) / math.sqrt(len(differences))
    reach = float(t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - reach, mean + reach


def column(rows: Sequence[Row], training: str, name: str) -> list[float]:
    """Return one number of one training, ordered by seed."""
    if name == "margin":
        pairs = zip(column(rows, training, "similarity"), column(rows, training, "classmates"), strict=True)
        return [own - class_ for own, class_ in pairs]
    return [row[name] for row in sorted(rows, key=lambda row: row["seed"]) if row["training"] == training]


def tables(rows: Sequence[Row]) -> str:
    """Return means with standard deviations, and paired differences with intervals, as Markdown."""
    trainings = list(dict.fromkeys(row["training"] for row in rows))
    lines = [_line("training", *COLUMNS.values()), _line(*["---"] * (len(COLUMNS) + 1))]
    for training in trainings:
        values = [column(rows, training, name) for name in COLUMNS]
        lines.append(_line(training, *(f"{fmean(v):.3f} ± {stdev(v):.3f}" for v in values)))
    seeds = len({row["seed"] for row in rows})
    lines += [
        "",
        f"Mean ± standard deviation over {seeds} seeds. Paired differences by seed, with 95 % intervals:",
        "",
    ]
    lines += [_line("change", *COLUMNS.values()), _line(*["---"] * (len(COLUMNS) + 1))]
    for after, before in PAIRS:
        cells = []
        for name in COLUMNS:
            mean, low, high = paired_interval(column(rows, after, name), column(rows, before, name))
            cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(_line(f"{after} − {before}", *cells))
    seconds = [f"{training} {fmean(column(rows, training, 'seconds')):.0f} s" for training in trainings]
    lines += ["", f"Time per run on one core of a shared machine: {', '.join(seconds)}."]
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def page(text: str, rows: Sequence[Row]) -> str:
    """Return the page with new tables."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables(rows)}\n{END}{rest.partition(END)[2]}"


def measured() -> None:
    """Run the example, and store its numbers and its figure."""
    with TemporaryDirectory() as folder:
        example = ROOT / "examples" / "adversarial.py"
        subprocess.run([sys.executable, str(example), "--seeds", str(SEEDS), "--out", folder], check=True, cwd=ROOT)
        shutil.copyfile(Path(folder, "adversarial.json"), RESULTS)
        shutil.copyfile(Path(folder, "adversarial.png"), PICTURE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--report", action="store_true", help="only write the tables, from the stored numbers")
    if not parser.parse_args().report:
        measured()
    PAGE.write_text(page(PAGE.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), "utf-8")
