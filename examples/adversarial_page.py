"""The table and the figure of `adversarial.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

import matplotlib.pyplot as plt
from torch import Tensor

COLUMNS = {
    "clean": "clean accuracy",
    "pgd20": "PGD-20 accuracy",
    "similarity": "adv_similarity",
    "similarity_held": "... where predictions held",
    "degenerate": "degenerate maps",
    "classmates": "two images of a class",
    "others": "any two images",
}


def table(rows: Sequence[Any]) -> str:
    """Return a table with one row per training: the mean over seeds, and the standard deviation for several seeds."""
    lines = ["| training | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for training in dict.fromkeys(row.training for row in rows):
        cells = []
        for column in COLUMNS:
            values = [getattr(row, column) for row in rows if row.training == training]
            cells.append(f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else ""))
        lines.append(f"| {training} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Any], shown: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Draw the numbers as bars, and below, for each training, six images, clean and attacked, with their maps."""
    figure = plt.figure(figsize=(13, 3 + 1.3 * len(shown)))
    grid = figure.add_gridspec(2, 1, height_ratios=(2, 1.1 * len(shown)), hspace=0.2)
    bars = cast(Any, grid[0].subgridspec(1, len(COLUMNS)).subplots(sharey=True))
    for axis, (column, title) in zip(bars, COLUMNS.items(), strict=True):
        for position, training in enumerate(shown):
            values = [getattr(row, column) for row in rows if row.training == training]
            axis.bar(position, fmean(values), color=f"C{position}")
            axis.plot([position] * len(values), values, "k.", markersize=3)
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(shown)), list(shown), rotation=20, fontsize=7)
    pairs = cast(Any, grid[1].subgridspec(len(shown), 24, wspace=0.05, hspace=0.35).subplots(squeeze=False))
    for training, axes in zip(shown, pairs, strict=True):
        _draw_pairs(shown[training], axes)
        axes[0].set_ylabel(training)
    figure.text(0.5, 0.02, "image, map, attacked image with its prediction, map", ha="center")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)


def _draw_pairs(shown: Mapping[str, Tensor], axes: Sequence[Any]) -> None:
    for position, axis in enumerate(axes):
        row, kind = divmod(position, 4)
        values = shown[("image", "map", "attacked image", "attacked map")[kind]][row]
        if values.ndim == 3:
            axis.imshow(values.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        else:
            axis.imshow(values.numpy(), cmap="inferno", vmin=0)
        axis.set(xticks=[], yticks=[])
        if kind == 2:
            right = bool(shown["predicted"][row] == shown["label"][row])
            axis.set_xlabel(f"{int(shown['predicted'][row])} {'✓' if right else '✗'}", fontsize=8)
