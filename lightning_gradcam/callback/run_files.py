"""The files of a run without a logger: figures as PNG, numbers as CSV, in a folder of the run's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from lightning_gradcam.loggers import WRITERS, sanitize_tag, write_png


class RunFiles:
    """Stands in for a logger: ``root/tag/version_0`` for the first run, ``version_1`` for the next.

    Args:
        root: The Trainer's folder.
        tag: The prefix of all names.
    """

    destination: ClassVar[str] = "the folder of files"

    def __init__(self, root: str | Path, tag: str) -> None:
        self.root, self.tag = Path(root), tag
        self._rows: dict[int, dict[str, float]] = {}

    @cached_property
    def folder(self) -> Path:
        """The folder of this run, created when it is first needed."""
        parent = Path(self.root, *sanitize_tag(self.tag).split("/"))
        parent.mkdir(parents=True, exist_ok=True)
        return next(folder for number in count() if create_folder(folder := parent / f"version_{number}"))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of a step to ``metrics.csv``, whose columns are all names so far."""
        if not values:
            return
        self._rows.setdefault(step, {"step": step}).update(values)
        names = dict.fromkeys(name for row in self._rows.values() for name in row)
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(names))
        writer.writeheader()
        writer.writerows(self._rows.values())
        (self.folder / "metrics.csv").write_bytes(table.getvalue().encode())


def create_folder(folder: Path) -> bool:
    """Create a folder; return False if it exists, because of an earlier run or one that starts at the same time."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


@WRITERS.register("RunFiles")
def write_run_file(logger: RunFiles, tag: str, figure: Tensor, step: int) -> None:
    """Write ``version_0/layer/step=000042.png``."""
    write_png(logger.folder, tag.removeprefix(f"{sanitize_tag(logger.tag)}/"), figure, step)
