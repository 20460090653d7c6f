"""The page docs/regimes.md, generated from the tables of regimes and guards; `make regimes` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.mutants.breaks import BREAKS
from tests.regimes import TABLES, Regime
from tests.regimes.processes import CASES, Case

PAGE = Path(__file__).parents[2] / "docs" / "regimes.md"
PROCESSES = """
Two processes over gloo. Each test compares the shards of each rank with and without the callback, the evidence of both
ranks with each other and with that of a single process with the complete model, and the monitored values. Rows that
fail on purpose end with one warning, in a run that finishes with the same weights. For DeepSpeed and unknown
strategies, one warning says that the run has no explanations.
"""

HEAD = """# Training is never disturbed

Each row below is one way to train (a regime). A test trains twice with the same seed, with and without
`GradCAMCallback`, and compares, bit for bit, before every batch, around every validation and optimizer step, and at the
end: weights, buffers, gradients, `requires_grad`, training modes, hooks and attributes of all modules, the random state
of PyTorch, NumPy and Python, process-wide switches (grad mode, autocast, deterministic algorithms, attention's fast
path, ...), the state of optimizers, schedulers and other callbacks, and every value that the user logs.

The callback takes snapshots in each of these runs, and the test checks how many. The last column names the guard that
keeps the row undisturbed: `make test-red` removes these guards from a copy of the package, one by one, and requires the
rows to fail.
"""


def generate_page() -> str:
    """Return the page."""
    alone = "".join(_table(title, {row.name: row for row in rows}) for title, rows in TABLES.items())
    return HEAD + alone + _table("Several processes", CASES, PROCESSES)


def _table(title: str, rows: Mapping[str, Regime | Case], before: str = "") -> str:
    lines = [f"| {name} | {row.about} | {BREAKS[row.breaks].about} |\n" for name, row in rows.items()]
    return f"\n## {title}\n{before}\n| regime | what is special | guarded by |\n| --- | --- | --- |\n{''.join(lines)}"


if __name__ == "__main__":
    PAGE.write_text(generate_page(), "utf-8")
