"""Passages in the graph of a trace, compared with removing each output and looking for a path."""

from __future__ import annotations

from hypothesis import given, strategies as st

from lightning_gradcam.capture.layer import IMAGES, LayerRecord
from lightning_gradcam.layers.record_graph import find_ancestors, find_dependent, find_passages, find_stream_readers
from tests.helpers.models import examples


@st.composite
def graphs(draw):
    """Draw records whose outputs read earlier ones, the images, or nothing."""
    count = draw(st.integers(1, 7))
    reads = [draw(st.frozensets(st.integers(IMAGES, i - 1), max_size=3)) for i in range(count)]
    scored = [draw(st.booleans()) for _ in range(count)]
    return [
        LayerRecord(f"m{i}", "Conv2d", (2, 4, 4, 4), (4, 4), reads=r, is_scored=s)
        for i, (r, s) in enumerate(zip(reads, scored, strict=True))
    ]


def has_path(records, without=None):
    """Search depth-first for a path from the score to the images that avoids one output."""
    pending = [i for i, r in enumerate(records) if r.is_scored]
    while pending:
        index = pending.pop()
        if index == IMAGES:
            return True
        if index != without:
            pending += records[index].reads
    return False


@examples(300)
@given(graphs())
def test_passages_are_outputs_whose_removal_cuts_all_paths(records):
    expected = {i for i in range(len(records)) if has_path(records) and not has_path(records, without=i)}
    assert find_passages(records) == expected


@examples(300)
@given(graphs())
def test_stream_readers_read_all_that_later_outputs_read(records):
    dependent = {i for i in range(len(records)) if IMAGES in find_ancestors_or_images(i, records)}
    scored = {i for i, r in enumerate(records) if r.is_scored}
    scored |= {j for i in scored for j in find_ancestors(i, records)}
    on_path = dependent & scored

    def list_alive(index):
        later = [r.reads for i, r in enumerate(records) if i >= index and i in on_path]
        later.append({i for i, r in enumerate(records) if r.is_scored})
        return {s for reads in later for s in reads if s < index and (s in on_path or s == IMAGES)}

    alive = {i: list_alive(i) for i in on_path}
    expected = {i for i, sources in alive.items() if len(sources - {IMAGES}) > 1 and sources <= records[i].reads}
    assert find_stream_readers(records) == expected


def find_ancestors_or_images(index, records):
    sources = {index, *find_ancestors(index, records)}
    return {s for i in sources for s in records[i].reads if s == IMAGES}


@examples(200)
@given(graphs())
def test_dependent_outputs_have_a_path_to_the_images(records):
    def reaches_images(index):
        return index == IMAGES or any(map(reaches_images, records[index].reads))

    assert find_dependent(records) == set(filter(reaches_images, range(len(records))))
    for index in range(len(records)):
        reached = {i for i in range(index) if i in find_ancestors(index, records)}
        direct = records[index].reads - {IMAGES}
        assert reached == direct | {i for source in direct for i in find_ancestors(source, records)}
