"""Feature maps of a trace, and the whole map of which one is a branch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lightning_gradcam.capture.layer import LayerRecord, is_vanishing
from lightning_gradcam.errors import NotExplainableError

_NOT_FEATURES = re.compile(
    r"(pool(ing)?|(un)?flatten|unfold|permute|rearrange|dropout|droppath|identity)(\d?d)?$", re.IGNORECASE
)


def feature_maps(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """List the spatial outputs that reach the score, without poolings, flattenings, dropout and the model's answer.

    Raises:
        NotExplainableError: The trace has none.
    """
    spatial = [r for r in records if r.cells > 1]
    gradient_vanishes = is_vanishing(records)
    reached = [r for r in spatial if r.reaches and (r.touched or gradient_vanishes)]
    features = [r for r in reached if not _NOT_FEATURES.search(r.kind) and not r.answers]
    if not features:
        problem, remedy = _explain_missing_features(records, len(spatial), len(reached))
        last_outputs = ", ".join(f"{r.name} {list(r.shape)}" for r in records[-5:]) or "none"
        raise NotExplainableError(f"No layer to explain: {problem}. The last outputs were: {last_outputs}. {remedy}")
    return features


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
        return "no module returns a spatial output", (
            "If tokens or vectors have positions in the image, pass `layers=Layer(name, to_grid=...)`, which turns "
            "them into (n, C, *grid)."
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
    block = find_enclosing_block(record, records)
    if block and not is_stack_member(record, records):
        record = find_last_map_before(block, record, same_grid) or record
    return find_next_norm(record, same_grid, records) or record


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
        if not _NOT_FEATURES.search(r.kind) or _is_inside(record.name, (*r.inner, r.name)[0])
        if not r.answers
    ]
    modules = [name for r in later if r.cells or record.kind == "Linear" for name in (r.name, *r.inner)]
    return max((name for name in modules if _is_inside(record.name, name)), key=len, default="")


def find_last_map_before(block: str, record: LayerRecord, same_grid: Sequence[LayerRecord]) -> LayerRecord | None:
    """Return the last map on a record's grid that was computed before it and outside the block.

    ViT: ``norm1`` of the last block, before its attention. BoTNet: the last stage on the grid. Swin: None for the last
    block of a stage, since no map lies outside of ``features``.
    """
    earlier = [r for r in same_grid[: same_grid.index(record)] if not _is_inside(f"{r.name}.", block)]
    return earlier[-1] if earlier else None


def is_stack_member(record: LayerRecord, records: Sequence[LayerRecord]) -> bool:
    """Return whether a sequence of tokens is the output of a block in a stack, which is not a branch of the stack.

    The next block has the next number, and parts of the same names, as in ``nn.TransformerEncoder``. The output of
    ``layers.0`` holds all tokens, although the encoder around it returns those of ``layers.1``.
    """
    if not record.tokens:
        return False
    prefix, number = re.fullmatch(r"(.*?)(\d*)", record.name).groups()  # type: ignore[union-attr]  # always matches
    names = [name for r in records for name in (r.name, *r.inner)]

    def list_parts(index: int) -> set[str]:
        block = f"{prefix}{index}"
        return {name.removeprefix(f"{block}.") for name in names if _is_inside(name, block)}

    return bool(number and list_parts(int(number))) and list_parts(int(number)) == list_parts(int(number) + 1)


def find_next_norm(
    record: LayerRecord, same_grid: Sequence[LayerRecord], records: Sequence[LayerRecord]
) -> LayerRecord | None:
    """Return the output of the next layer if it only normalizes the tokens.

    ViT: ``norm1`` of the last block, the input of the last attention. Shapes may differ if the record is the map of the
    convolution that computes the patches, which is not a sequence yet.
    """
    position = records.index(record) + 1
    if position == len(records):
        return None
    following = records[position]
    is_norm = following in same_grid and following.tokens and "Norm" in following.kind
    return following if is_norm and (not record.tokens or following.shape == record.shape) else None


def _is_inside(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")
