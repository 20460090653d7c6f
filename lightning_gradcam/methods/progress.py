"""Progress bars of methods that run many forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress(description: str, total: int, unit: str, delay: float) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on a terminal while the block runs.

    Args:
        description: The text before the bar.
        total: The number of units of work.
        unit: The name of a unit.
        delay: Seconds until the bar appears; a faster block shows none.

    Yields:
        A function that takes the number of units done since its last call.
    """
    from tqdm import tqdm  # imported late, because most methods never show a bar

    with tqdm(total=total, desc=description, unit=unit, leave=False, delay=delay, disable=None) as bar:
        yield bar.update
