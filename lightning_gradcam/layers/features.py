"""Feature maps of a trace, and the whole map of which one is a branch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile

from lightning_gradcam.capture.layer import IMAGES, LayerRecord, is_vanishing
from lightning_gradcam.capture.layouts import Grid
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.layers.answers import LINEAR, find_answers
from lightning_gradcam.layers.record_graph import (
    find_ancestors,
    find_dependent,
    find_passages,
    find_stream_readers,
    list_reads,
)

_NOT_FEATURES = re.compile(
    r"(pool(ing)?|(un)?flatten|unfold|permute|rearrange|dropout|droppath|identity|^((?!conv).)*pad(ding)?)(\d?d)?$",
    re.IGNORECASE,
)


def feature_maps(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """List the spatial outputs that depend on the images and reach the score.

    Poolings, flattenings, padding, dropout, the model's answer and heads (see `_remove_heads`) are left out. If no
    output depends on the images, the model gets them in another way, and all count.

    Raises:
        NotExplainableError: The trace has none.
    """
    dependent = find_dependent(records) or set(range(len(records)))
    spatial = [r for i, r in enumerate(records) if r.cells > 1 and i in dependent]
    gradient_vanishes = is_vanishing(records)
    reached = [r for r in spatial if r.reaches and (r.touched or gradient_vanishes) and not r.misplaced]
    features = [r for r in reached if not _NOT_FEATURES.search(r.kind) and not r.answers]
    features = _remove_heads(features, records)
    if not features:
        problem, remedy = _explain_missing_features(records, len(spatial), len(reached))
        last_outputs = ", ".join(f"{r.name} {list(r.shape)}" for r in records[-5:]) or "none"
        raise NotExplainableError(f"No layer to explain: {problem}. The last outputs were: {last_outputs}. {remedy}")
    return features


def _remove_heads(features: list[LayerRecord], records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """Leave out the outputs of heads: weights or scores of positions instead of features.

    - Maps of one channel.
    - Maps of a convolution or linear layer that hold a part of the evidence (not all paths from the images go through
      them) and that the score reads without another layer in between: an auxiliary head, a detector's class scores.
    - Maps that hold a part of it, from a module that runs on several grids: a detector's head on each level.
    - The model's output itself, see `answers`: heatmaps, a reconstruction.

    All are kept if there are no others.
    """
    passages = find_passages(records)
    grids: dict[str, set[Grid | None]] = defaultdict(set)
    for record in records:
        grids[record.name].add(record.grid)
    partial = {r.key for i, r in enumerate(records) if i not in passages}
    last = {r.key for r in records if r.is_scored}
    last |= {  # read through the module around it, which joins the scores of all levels
        records[i].key
        for r in records
        if r.is_scored and not r.cells
        for i in r.reads or ()
        if i != IMAGES and _is_inside(records[i].name, r.name)
    }

    answers = {records[i].key for i in find_answers(records)}

    def is_head(record: LayerRecord) -> bool:
        if record.channels == 1 or record.key in answers:
            return True
        is_last_layer = record.key in last and bool(LINEAR.search(record.kind))
        return record.key in partial and (is_last_layer or len(grids[record.name]) > 1)

    return [r for r in features if not is_head(r)] or features


def _explain_missing_features(records: Sequence[LayerRecord], spatial: int, reached: int) -> tuple[str, str]:
    """Return why a trace has no feature map, and the remedy.

    Args:
        records: The trace.
        spatial: Number of spatial outputs.
        reached: Number of these that the gradient of the score reaches.
    """
    if not records:
        return "no module returns a tensor of the images", (
            "Functions, and the graph of an exported model, have no layers to hook: compute the feature map in a "
            "module called by `forward`, or pass the model that was exported."
        )
    if not spatial:
        has_unread = any(len(r.shape) > 2 and r.grid is None for r in records)
        problem = (
            "the outputs' positions in the images are unknown" if has_unread else "no module returns a spatial output"
        )
        return problem, (
            "If tokens or vectors have positions in the image, pass `layers=Layer(name, to_grid=...)`, which turns "
            "them into (n, C, *grid)."
        )
    if not reached and any(r.misplaced for r in records):
        return "changes of the images do not change the outputs at their own places", (
            "Tokens in another order than the image's, or merged, are not a map: pass "
            "`layers=Layer(name, to_grid=...)`, which turns them into (n, C, *grid), or name a layer in "
            "`layers=` to explain it anyway."
        )
    if not reached:
        return f"no gradient of the score reaches the {spatial} spatial outputs", (
            "A detach, a later no_grad, an inference_mode or a step outside of PyTorch cuts it off: remove it from "
            "`forward`, or pass a `target=` that depends on these outputs."
        )
    problem = "the only spatial outputs are poolings, or the scores of pixels"
    return problem, "Name one in `layers=` to explain it anyway."


def find_enclosing_output(
    record: LayerRecord, features: Sequence[LayerRecord], records: Sequence[LayerRecord]
) -> LayerRecord:
    """Return the feature map to explain instead of one that holds only a branch of it, on the same grid.

    Queries, keys, values and widened channels are branches: they lie inside a block that does not return a map of that
    grid itself. The input of the block holds all of it. In front of an attention, the normalized input is taken.

    Args:
        record: One of the features.
        features: All `feature_maps` of the trace.
        records: The whole trace.
    """
    same_grid = [r for r in features if r.grid == record.grid]
    passages = list_passages(record, same_grid, records)
    record = leave_blocks(passages, records) if passages else leave_block(record, same_grid, records)
    return find_next_norm(record, same_grid, records) or record


def list_passages(
    record: LayerRecord, same_grid: Sequence[LayerRecord], records: Sequence[LayerRecord]
) -> list[LayerRecord]:
    """List the maps up to a record, on its grid, through which every path from the images to the score goes.

    ViT with a class token: the outputs of all blocks but the last, or, if its residuals are added outside of modules,
    the norms of the sums. Encoder and decoder: up to the encoder's output. None if more than one block lies between
    the last of them and the record, as in a feature pyramid, or a sum that neither a module returns nor a norm reads.
    """
    position = records.index(record)
    passages, readers = find_passages(records), find_stream_readers(records)
    norms = {i for i in readers if "Norm" in records[i].kind}
    positions = sorted(i for i in passages | norms if i <= position and records[i] in same_grid)
    if not positions or any(positions[-1] < i <= position and records[i] in same_grid for i in readers):
        return []
    last = positions[-1]
    outputs = [records[i] for i in (*sorted(find_ancestors(position, records, last)), position)]
    # A norm of a sum lies inside of the block that reads it.
    is_near = find_module_around([records[last], *outputs]) if last in norms else is_one_block(outputs, records[last])
    return [records[i] for i in positions] if is_near else []


def is_one_block(outputs: Sequence[LayerRecord], preceding: LayerRecord) -> bool:
    """Return whether outputs belong to one module that does not contain the map before them, or are a single one."""
    module = find_module_around(outputs)
    return len(outputs) < 2 or bool(module and not _is_inside(f"{preceding.path}.", module))


def find_module_around(outputs: Sequence[LayerRecord]) -> str:
    """Find the innermost module that contains those of all outputs; empty if only the model does."""
    paths = [r.path.split(".") for r in outputs]
    return ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def leave_blocks(passages: Sequence[LayerRecord], records: Sequence[LayerRecord]) -> LayerRecord:
    """Return the last passage that is not inside a block that returns something else, from the inside out.

    A block that widens the channels in front of a step to a coarser grid is left; a stage that ends with this step is
    not, since its blocks keep the number of channels.
    """
    record = passages[-1]
    while block := find_enclosing_block(record, records):
        earlier = find_last_map_before(block, record, passages)
        if earlier is None or earlier.channels == record.channels:
            break
        record = earlier
    return record


def leave_block(record: LayerRecord, same_grid: Sequence[LayerRecord], records: Sequence[LayerRecord]) -> LayerRecord:
    """Return the last map before the innermost block around a record that returns something else, or the record."""
    block = find_enclosing_block(record, records)
    return (find_last_map_before(block, record, same_grid) if block else None) or record


def find_enclosing_block(record: LayerRecord, records: Sequence[LayerRecord]) -> str:
    """Return the innermost module around a map that returns something else later; empty if there is none.

    ViT: around the queries, keys and values of the last block, its attention; with a class token, the patches that it
    returns miss the score. BoTNet: around the projection in an attention that halves the grid, this attention.
    ResNets of CLIP: around the values of the attention pooling, this pooling. It returns a vector, which counts for
    linear layers only, and is a block although it is a pooling, since it has layers inside.
    """
    later = [
        r
        for r in records[records.index(record) + 1 :]
        if not _NOT_FEATURES.search(r.kind) or _is_inside(record.path, (*r.inner, r.name)[0])
        if not r.answers
    ]
    modules = [name for r in later if r.cells or record.kind == "Linear" for name in (r.name, *r.inner)]
    return max((name for name in modules if _is_inside(record.path, name)), key=len, default="")


def find_last_map_before(block: str, record: LayerRecord, same_grid: Sequence[LayerRecord]) -> LayerRecord | None:
    """Return the last map on a record's grid that was computed before it and outside the block.

    ViT: ``norm1`` of the last block, before its attention. BoTNet: the last stage on the grid. Swin: None for the last
    block of a stage, since no map lies outside of ``features``.
    """
    earlier = [r for r in same_grid[: same_grid.index(record)] if not _is_inside(f"{r.path}.", block)]
    return earlier[-1] if earlier else None


def find_next_norm(
    record: LayerRecord, same_grid: Sequence[LayerRecord], records: Sequence[LayerRecord]
) -> LayerRecord | None:
    """Return the output of the next layer if it only normalizes the tokens, and no other map is computed from them.

    ViT: ``norm1`` of the last block, the input of the last attention. Shapes may differ if the record is the map of the
    convolution that computes the patches, which is not a sequence yet.
    """
    position = records.index(record) + 1
    if position == len(records):
        return None
    following = records[position]
    is_norm = following in same_grid and following.tokens and "Norm" in following.kind
    readers = [r for r, reads in zip(records, list_reads(records), strict=True) if position - 1 in reads]
    if any(reader in same_grid for reader in readers if reader is not following):
        return None
    return following if is_norm and (not record.tokens or following.shape == record.shape) else None


def _is_inside(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")
