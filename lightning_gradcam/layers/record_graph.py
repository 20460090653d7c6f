"""Paths through a trace: what depends on the images, and where all paths from them to the score meet."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lightning_gradcam.capture.layer import IMAGES, LayerRecord


def list_reads(records: Sequence[LayerRecord]) -> list[frozenset[int]]:
    """List what each output was computed from; where that is unknown, the one before it."""
    return [frozenset({i - 1}) if record.reads is None else record.reads for i, record in enumerate(records)]


def find_dependent(records: Sequence[LayerRecord]) -> set[int]:
    """Find the outputs that are computed from the images, as indices.

    >>> records = [LayerRecord("a", "Conv2d", (1,), None, reads=frozenset(r)) for r in ({IMAGES}, {}, {1}, {0, 2})]
    >>> find_dependent(records)
    {0, 3}
    """
    dependent = {IMAGES}
    for index, reads in enumerate(list_reads(records)):
        if reads & dependent:
            dependent.add(index)
    return dependent - {IMAGES}


def list_last(records: Sequence[LayerRecord]) -> set[int]:
    """List the outputs from which the score is computed directly, as indices; where that is unknown, the last one."""
    return {i for i, r in enumerate(records) if r.is_scored or (r.reads is None and i == len(records) - 1)}


def find_scored(records: Sequence[LayerRecord]) -> set[int]:
    """Find the outputs from which the score is computed, directly or through others, as indices."""
    reads = list_reads(records)
    scored = list_last(records)
    for index in reversed(range(len(records))):
        if index in scored:
            scored |= reads[index]
    return scored - {IMAGES}


def find_ancestors(index: int, records: Sequence[LayerRecord], start: int = IMAGES) -> set[int]:
    """Find the outputs from which output ``index`` is computed, as indices; only those after index ``start``."""
    reads = list_reads(records)
    ancestors: set[int] = set()
    pending = {index}
    while pending:
        sources = {source for source in reads[pending.pop()] if source > start} - ancestors
        ancestors |= sources
        pending |= sources
    return ancestors


def find_passages(records: Sequence[LayerRecord]) -> set[int]:
    """Find the outputs through which every path from the images to the score goes, as indices.

    The output of a residual block is one; what is computed inside of the block is not, as the residual goes around it.
    With outputs in order of execution, it is one if no step of a path jumps over its position.

    >>> reads = ({IMAGES}, {0}, {1}, {0, 2}, {3})  # a residual block: 1 and 2 are its branch
    >>> records = [LayerRecord("a", "Conv2d", (1,), None, reads=frozenset(r), is_scored=r == {3}) for r in reads]
    >>> find_passages(records)
    {0, 3, 4}
    """
    on_path = find_dependent(records) & find_scored(records)
    jumps = [0] * (len(records) + 2)  # per position, steps that begin to jump over it minus those that end
    for source, index in list_steps(records, on_path):
        jumps[source + 1] += 1
        jumps[index] -= 1
    passages, jumping = set(), 0
    for index in range(len(records)):
        jumping += jumps[index]
        if index in on_path and not jumping:
            passages.add(index)
    return passages


def find_stream_readers(records: Sequence[LayerRecord]) -> set[int]:
    """Find the outputs whose input is a sum that no module returns, and through which every path goes, as indices.

    Such sums are the states of a residual stream if the residuals are added outside of modules. An output reads all of
    the sum if it reads every output that is still on a path to the score at its position. At least two of these are on
    its own grid; a class token next to the patches is no sum.

    >>> reads = ({IMAGES}, {0}, {0, 1}, {0, 1, 2})  # an embedding, and two branches that are added to it
    >>> records = [LayerRecord("a", "Linear", (1,), (4,), reads=frozenset(r), is_scored=len(r) == 3) for r in reads]
    >>> find_stream_readers(records)
    {2, 3}
    """
    on_path = find_dependent(records) & find_scored(records)
    last_reads: dict[int, int] = {}
    for source, index in list_steps(records, on_path):
        last_reads[source] = max(index, last_reads.get(source, index))
    readers: set[int] = set()
    alive = {IMAGES} & last_reads.keys()
    for index, reads in enumerate(list_reads(records)):
        alive = {source for source in alive if last_reads[source] >= index}
        if index in on_path:
            summands = [i for i in alive if i != IMAGES and records[i].grid == records[index].grid]
            if len(summands) > 1 and alive <= reads:
                readers.add(index)
            alive.add(index)
    return readers


def list_steps(records: Sequence[LayerRecord], on_path: Collection[int]) -> list[tuple[int, int]]:
    """List the steps of the paths from the images to the score, as pairs of indices; the score comes after the last."""
    count = len(records)
    steps = [(source, index) for index, reads in enumerate(list_reads(records)) if index in on_path for source in reads]
    steps += [(index, count) for index in sorted(list_last(records))]
    return [(source, index) for source, index in steps if source in on_path or source == IMAGES]
