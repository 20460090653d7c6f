"""Chunks of a probe, as large as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias, TypeVar

from torch import nn

from lightning_gradcam.capture.forward import is_out_of_memory
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets import select_rows


class _Result(Protocol):
    """A result per image that can be concatenated."""

    @classmethod
    def cat(cls, results: Sequence[Any], /) -> Self: ...


Result = TypeVar("Result", bound=_Result)
Work: TypeAlias = Callable[[nn.Module, Probe, Sequence[Target]], list[Result]]


@dataclass
class Chunks:
    """Runs an explainer on a probe in chunks.

    Args:
        size: Number of images explained at once; None for all. It is halved when memory runs out, and later calls start
            from the smaller size. Checkpoints do not store it, since a resumed run may use another machine.
        ran_out: Whether memory has run out.
    """

    size: int | None = None
    ran_out: bool = False

    def __call__(
        self,
        work: Work[Result],
        model: nn.Module,
        probe: Probe,
        targets: Sequence[Target],
        rows: slice | None = None,
        may_halve: bool = True,
    ) -> list[Result]:
        """Run ``work`` on all chunks and concatenate its results.

        Args:
            work: Explains one chunk.
            model: The model that ``work`` takes.
            probe: All images.
            targets: The targets of all images.
            rows: The images to explain; None for all.
            may_halve: Whether to retry with smaller chunks when memory runs out.

        Returns:
            One result per target.

        Raises:
            NotExplainableError: Memory is too small for a single image. Errors of ``work`` pass through.
        """
        rows = slice(0, len(probe)) if rows is None else rows
        while True:
            size = min(self.size or len(probe), rows.stop - rows.start)
            try:
                results = [work(model, *chunk) for chunk in _split(probe, targets, rows, size)]
                return [type(per_chunk[0]).cat(per_chunk) for per_chunk in zip(*results, strict=True)]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not may_halve:
                    raise
                message = str(error)
            # Outside of the handler, because inside it the error keeps the tensors of the pass alive.
            if size == 1:
                raise NotExplainableError(
                    f"Memory is too small to explain a single image ({message}). Pass a later layer in `layers`."
                )
            self.size, self.ran_out = (size + 1) // 2, True


def _split(probe: Probe, targets: Sequence[Target], rows: slice, size: int) -> Iterator[tuple[Probe, Sequence[Target]]]:
    """Split these images, with their targets, into chunks of at most ``size``."""
    for start in range(rows.start, rows.stop, size):
        chunk = slice(start, min(start + size, rows.stop))
        yield probe[chunk], [select_rows(target, chunk) for target in targets]
