"""A probe explained in chunks: no more images at once than memory holds."""

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
    @classmethod
    def cat(cls, parts: Sequence[Any]) -> Self: ...


Result = TypeVar("Result", bound=_Result)
Work: TypeAlias = Callable[[nn.Module, Probe, Sequence[Target]], list[Result]]


@dataclass
class Chunks:
    """Runs an explainer over a probe in chunks.

    Args:
        size: How many images are explained at once; None is all. Halved where memory runs out, which later calls begin
            with. No checkpoint holds it: a resumed run may have another machine.
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
        """One result of all rows for each target.

        Args:
            work: What is done with a chunk.
            model: As ``work`` takes it.
            probe: All images.
            targets: Of all images.
            rows: Which rows are wanted; None is all.
            may_halve: Whether to try again with smaller chunks where memory runs out.

        Raises:
            NotExplainableError: Memory does not hold a single image; and what ``work`` raises.
        """
        rows = slice(0, len(probe)) if rows is None else rows
        while True:
            size = min(self.size or len(probe), rows.stop - rows.start)
            try:
                parts = [work(model, *part) for part in _cut(probe, targets, rows, size)]
                return [type(of_one_target[0]).cat(of_one_target) for of_one_target in zip(*parts, strict=True)]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not may_halve:
                    raise
                problem = str(error)
            # Outside of the handler: until it ends, the error holds on to the tensors of the pass.
            if size == 1:
                raise NotExplainableError(
                    f"Memory does not hold one image's explanation ({problem}). Try a later layer."
                )
            self.size, self.ran_out = (size + 1) // 2, True


def _cut(
    probe: Probe, targets: Sequence[Target], share: slice, at_once: int
) -> Iterator[tuple[Probe, Sequence[Target]]]:
    for start in range(share.start, share.stop, at_once):
        rows = slice(start, min(start + at_once, share.stop))
        yield probe[rows], [select_rows(target, rows) for target in targets]
