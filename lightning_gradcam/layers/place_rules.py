"""Rules for the places of one operation's output, by the name of its node in the graph of autograd.

Only operations that keep cells in their places have a rule. All others, such as sorting, indexing and matrix products
of tokens, lose them; a residual that is added afterwards brings them back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from lightning_gradcam.layers.center_rules import Shape, to_axis, to_signed
from lightning_gradcam.layers.rule_table import RuleTable


class Factor(NamedTuple):
    """A part of an axis: an axis of size 6 may hold a factor of 2 and, stepping faster, one of 3.

    Args:
        size: Number of its steps.
        parts: Spatial dimensions of the images that it steps through, the slowest first, each with its number of cells.
        prefix: Number of other tokens before these cells.
        suffix: Number of other tokens after them.
        is_batch: Whether it steps through the images.
    """

    size: int
    parts: tuple[tuple[int, int], ...] = ()
    prefix: int = 0
    suffix: int = 0
    is_batch: bool = False


Axis: TypeAlias = tuple[Factor, ...]
Places: TypeAlias = tuple[Axis, ...]
"""The factors of each axis of a tensor, without those of size 1."""

PlaceRule: TypeAlias = Callable[[Any, Shape, Sequence[Places | None]], Places]
"""A function of the node, the shape of its output and the places of its inputs, None for those without a graph."""


def lose(shape: Shape) -> Places:
    """Return the places of a tensor of which nothing is known."""
    return tuple((Factor(size),) if size != 1 else () for size in shape)


def is_known(axis: Axis) -> bool:
    """Return whether all steps along an axis are those of images or of cells."""
    return bool(axis) and all(factor.parts or factor.is_batch for factor in axis)


def merge_parts(axis: Axis) -> Factor | None:
    """Return an axis of cells as one factor; None if it holds anything else."""
    if len(axis) == 1 and axis[0].parts:
        return axis[0]
    if not axis or not all(f.parts and f.size == math.prod(cells for _, cells in f.parts) for f in axis):
        return None
    return Factor(math.prod(f.size for f in axis), tuple(part for f in axis for part in f.parts))


def _measure(axis: Axis) -> int:
    return math.prod(factor.size for factor in axis)


def combine(_node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of an elementwise operation or a normalization: those that inputs of the same size agree on."""
    axes = []
    for axis, size in enumerate(shape, start=-len(shape)):
        operands = [places[axis] for places in inputs if places is not None and len(places) >= -axis]
        agreed = {operand for operand in operands if _measure(operand) == size > 1 and is_known(operand)}
        axes.append(agreed.pop() if len(agreed) == 1 else lose((size,))[0])
    return tuple(axes)


def view(_node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a reshaped tensor; blocks of neighbors are a coarser grid."""
    pending = [factor for axis in inputs[0] or () for factor in axis]
    axes = []
    for size in shape:
        axis, left = [], size
        while left > 1:
            factor = pending.pop(0) if pending else Factor(1)
            if factor.size > 1 and left % factor.size == 0:
                axis.append(factor)
                left //= factor.size
            elif factor.size % left == 0:
                is_single = len(factor.parts) == 1 and factor.parts[0][1] == factor.size
                axis.append(Factor(left, ((factor.parts[0][0], left),) if is_single else ()))
                pending.insert(0, Factor(factor.size // left))
                left = 1
            else:
                return lose(shape)
        axes.append(tuple(axis))
    return tuple(axes)


def multiply(_node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a linear layer, which keeps rows: the second last input is multiplied with the last."""
    rows = inputs[-2] if len(inputs) > 1 else None
    return (rows[0], *lose(shape[1:])) if rows is not None and len(rows) == len(shape) == 2 else lose(shape)


def slide(node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a convolution or pooling: the same spatial axes, with other sizes, and other channels."""
    places = resize(node, shape, inputs)
    return (places[0], *lose(shape[1:2]), *places[2:])


def resize(_node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a padding or interpolation: the same axes, with other sizes."""
    places = inputs[0]
    if places is None or len(places) != len(shape):
        return lose(shape)
    return tuple(map(_resize_axis, places, shape))


def _resize_axis(axis: Axis, size: int) -> Axis:
    if _measure(axis) == size:
        return axis
    factor = merge_parts(axis)
    if factor is None or len(factor.parts) != 1 or factor.prefix + factor.suffix:
        return lose((size,))[0]
    return _place(factor.parts[0][0], size)


def _place(dimension: int, size: int) -> Axis:
    return (Factor(size, ((dimension, size),)),) if size > 1 else ()


def transpose(node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a tensor with two axes exchanged."""
    axes = list(inputs[0] or lose(shape))
    first, second = (
        to_axis(getattr(node, name, i), len(shape)) for i, name in enumerate(("_saved_dim0", "_saved_dim1"))
    )
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def permute(node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a tensor with its axes in another order."""
    places = inputs[0]
    return lose(shape) if places is None else tuple(places[to_axis(dim, len(shape))] for dim in node._saved_dims)


def crop(node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a slice: without other tokens, or every second cell."""
    if inputs[0] is None:
        return lose(shape)
    axes, axis = list(inputs[0]), to_axis(node._saved_dim, len(shape))
    length, remaining, step = _measure(axes[axis]), shape[axis], node._saved_step
    start = to_signed(node._saved_start)
    start = min(max(start + length if start < 0 else start, 0), length)
    factor = merge_parts(axes[axis])
    if remaining == length:
        return tuple(axes)
    if factor is not None and step == 1 and start <= factor.prefix and length - start - remaining <= factor.suffix:
        suffix = factor.suffix - (length - start - remaining)
        axes[axis] = (factor._replace(size=remaining, prefix=factor.prefix - start, suffix=suffix),)
    elif start < step and remaining == math.ceil((length - start) / step):
        axes[axis] = _resize_axis(axes[axis], remaining)
    else:
        axes[axis] = lose((remaining,))[0]
    return tuple(axes)


def concatenate(node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of concatenated tensors: cells keep theirs if only other tokens join them."""
    axis = to_axis(node._saved_dim, len(shape))
    axes = list(combine(node, shape, inputs))
    axes[axis] = lose(shape[axis : axis + 1])[0]
    factors = [merge_parts(places[axis]) if places is not None else None for places in inputs]
    if sum(factor is not None for factor in factors) != 1:
        return tuple(axes)
    place, factor = next((i, f) for i, f in enumerate(factors) if f is not None)
    sizes = [None if places is None else _measure(places[axis]) for places in inputs]
    extra = shape[axis] - factor.size
    prefix, suffix = _add(sizes[:place]), _add(sizes[place + 1 :])
    if prefix is None and suffix is not None:  # what carries no grad has an unknown length
        prefix = extra - suffix
    elif suffix is None and prefix is not None:
        suffix = extra - prefix
    if prefix is not None and suffix is not None and prefix + suffix == extra:
        size, prefix, suffix = shape[axis], factor.prefix + prefix, factor.suffix + suffix
        axes[axis] = (factor._replace(size=size, prefix=prefix, suffix=suffix),)
    return tuple(axes)


def _add(sizes: Sequence[int | None]) -> int | None:
    measured = [size for size in sizes if size is not None]
    return sum(measured) if len(measured) == len(sizes) else None


def split(node: Any, shape: Shape, inputs: Sequence[Places | None]) -> Places:
    """Return the places of a part of a tensor along an axis, whose cells are not followed."""
    axes, axis = list(inputs[0] or lose(shape)), to_axis(node._saved_dim, len(shape))
    axes[axis] = lose(shape[axis : axis + 1])[0]
    return tuple(axes)


PLACE_RULES: RuleTable[PlaceRule] = RuleTable(
    {
        r"(Add|Sub|Rsub|Mul|Div|Neg|Pow|Sqrt|Rsqrt|Exp|Clamp\w*|Where|Clone|ToCopy|Alias|NativeDropout)": combine,
        r"(Relu|Gelu|Silu|Mish|Hard\w+|Sigmoid|Tanh|Elu|Celu|Selu|LeakyRelu|\w*Prelu\w*)": combine,
        r"(Softplus|(Log)?Softmax)": combine,
        r"\w*(Layer|Batch|Group|Rms|RMS)Norm\w*": combine,
        r"(View|UnsafeView|ReshapeAlias|Unsqueeze|Squeeze)": view,
        r"(Mm|Addmm)": multiply,
        r"(Convolution(Overrideable)?|(Mkldnn)?(Max|Avg)Pool\dD(WithIndices)?)": slide,
        r"(ConstantPadNd|(Reflection|Replication)Pad\dD|Upsample\w+|(Mkldnn)?Adaptive\w+)": resize,
        r"(Transpose|T)": transpose,
        r"Permute": permute,
        r"Slice": crop,
        r"Cat": concatenate,
        r"(Unsafe)?Split\w*": split,
    }
)
"""The rules; an operation without one may move cells."""
