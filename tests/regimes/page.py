"""docs/regimes.md, from the tables of rows and breaks; `make regimes` writes it."""

from __future__ import annotations

from pathlib import Path

from breaks import BREAKS

from regimes import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "regimes.md"
BY_HAND = "<!-- distributed -->\n"
"""What stands behind this is written by hand."""

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
    """The page up to what is written by hand."""
    parts = [HEAD]
    for title, rows in TABLES.items():
        parts.append(f"\n## {title}\n\n| regime | what is special | guarded by |\n| --- | --- | --- |\n")
        parts += [f"| {row.name} | {row.about} | {BREAKS[row.breaks].about} |\n" for row in rows]
    return "".join([*parts, "\n## Several processes\n\n", BY_HAND])


def by_hand() -> str:
    """What stands behind the mark in the page as it is."""
    return PAGE.read_text("utf-8").partition(BY_HAND)[2] if PAGE.exists() else ""


if __name__ == "__main__":
    PAGE.write_text(generated() + by_hand(), "utf-8")
