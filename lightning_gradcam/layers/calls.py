"""Calls of a module that runs several times in a pass: which of them are explained, and which are summed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from lightning_gradcam.capture.layer import LayerRecord
from lightning_gradcam.layers.record_graph import find_dependent, list_reads


class Calls(NamedTuple):
    """The calls of a module that are explained.

    Args:
        record: The record of the last of them.
        indices: Their indices; evidence of several is summed.
        num_calls: How often the module runs in the pass.
        note: Why not all of them; empty if all are explained.
    """

    record: LayerRecord
    indices: tuple[int, ...]
    num_calls: int
    note: str = ""

    @property
    def is_last(self) -> bool:
        """Whether it is the last call alone."""
        return self.indices == (self.num_calls - 1,)

    @property
    def reason(self) -> str:
        """Words to add to the reason of a layer; empty if the module runs once."""
        if self.num_calls == 1:
            return ""
        if len(self.indices) == self.num_calls:
            return f"; the sum over the {self.num_calls} times it runs"
        which = f"number {self.indices[0]}" if len(self.indices) == 1 else f"the sum over {_join(self.indices)}"
        return f"; of its {self.num_calls} calls, from 0, {which}{f', since {self.note}' if self.note else ''}"


def choose_calls(name: str, records: Sequence[LayerRecord]) -> Calls | None:
    """Choose the calls of a module to explain, if none is named; None if the module is not in the trace.

    Calls count if they depend on the images. Of these, the ones that repeat the same step are summed: they return maps
    of the same size, are computed from outputs of the same modules, and the score depends on each of them also without
    the others, as in the time steps of a spiking network. Otherwise, the last one is explained. The same
    activation at several depths, or a step that reads only its own last output, is such a case.

    Args:
        name: The module's name.
        records: The trace.
    """
    calls = {i: call for i, record in enumerate(records) if (call := record.find_call(name)) is not None}
    if not calls:
        return None
    count = max(record.num_calls.get(name, 1) for record in records if name in (record.name, *record.inner))
    dependent = calls.keys() & (find_dependent(records) or calls.keys())
    with_gradient = [i for i in calls if i in dependent and records[i].reaches]
    candidates = with_gradient or sorted(dependent) or list(calls)
    last = candidates[-1]
    same_place = [i for i in candidates if _name_sources(i, name, records) == _name_sources(last, name, records)]
    same_step = [i for i in same_place if records[i].grid == records[last].grid and records[i].cells > 1]
    summed = sorted(find_direct(same_step, records) | {last})
    note = next(
        text
        for remaining, text in (
            (len(candidates) < len(calls) and len(dependent) < len(calls), "the others do not depend on the images"),
            (len(candidates) < len(calls), "the score does not depend on the others"),
            (len(same_place) < len(candidates), "the others run at other places of the model"),
            (len(same_step) < len(same_place), "the others return maps of other sizes"),
            (len(summed) < len(same_step), "the others reach the score through it alone"),
            (True, ""),
        )
        if remaining
    )
    return Calls(records[last], tuple(calls[i] % count for i in summed), count, note)


def find_direct(indices: Collection[int], records: Sequence[LayerRecord]) -> set[int]:
    """Find those of some outputs on which the score depends by a path that goes through no other one of them."""
    reads = list_reads(records)
    pending = {i for i, record in enumerate(records) if record.is_scored} or {len(records) - 1}
    visited: set[int] = set()
    while pending:
        index = pending.pop()
        visited.add(index)
        if index not in indices:
            pending |= {source for source in reads[index] if source >= 0} - visited
    return visited & set(indices)


def _name_sources(index: int, name: str, records: Sequence[LayerRecord]) -> set[str]:
    """Return the names of the modules from whose outputs an output of module ``name`` was computed, except itself."""
    sources = [records[source] for source in list_reads(records)[index] if source >= 0]
    return {source.name for source in sources} - {name, records[index].name}


def _join(indices: Sequence[int]) -> str:
    return f"{', '.join(map(str, indices[:-1]))} and {indices[-1]}"
