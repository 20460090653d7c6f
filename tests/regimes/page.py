"""docs/regimes.md, from the tables of rows and breaks; `make regimes` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.mutants.breaks import BREAKS
from tests.regimes import TABLES, Regime
from tests.regimes.processes import CASES, Case

PAGE = Path(__file__).parents[2] / "docs" / "regimes.md"
PROCESSES = """
Two processes over gloo. Compared are the shards of each process with and without the callback, the evidence of both
with each other and with that of one process that has the whole model, and what monitors wait for. Rows that fail on
purpose end with one warning, in a run that finishes with the same weights. DeepSpeed, and strategies that are not
known, are left alone with one warning.
"""

HEAD = """# Training is never disturbed

Each row below is one way to train. A test trains it twice with the same seed, with and without `GradCAMCallback`, and
compares, bit for bit, before every batch, around every validation and optimizer step, and at the end: weights, buffers,
gradients, `requires_grad`, train flags, hooks and attributes of all modules, the random state of PyTorch, NumPy and
Python, the switches of the process (grad mode, autocast, deterministic algorithms, attention's fast path, and so on),
the state of optimizers, schedulers and other callbacks, and every value that the user logs.

The callback really looks in each of these runs: how often is part of the test. The last column names what keeps the row
undisturbed: `make test-red` takes these guards out of a copy of the package, one by one, and sees the rows fail.
"""


def generated() -> str:
    """The page."""
    alone = "".join(_table(title, {row.name: row for row in rows}) for title, rows in TABLES.items())
    return HEAD + alone + _table("Several processes", CASES, PROCESSES)


def _table(title: str, rows: Mapping[str, Regime | Case], before: str = "") -> str:
    lines = [f"| {name} | {row.about} | {BREAKS[row.breaks].about} |\n" for name, row in rows.items()]
    return f"\n## {title}\n{before}\n| regime | what is special | guarded by |\n| --- | --- | --- |\n{''.join(lines)}"


if __name__ == "__main__":
    PAGE.write_text(generated(), "utf-8")
