"""Rules for the receptive field centers of one operation's output, by the name of its node in the graph of autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from lightning_gradcam.layers.receptive_field import AxisCenters, TensorCenters, Window, average, fit, rescale
from lightning_gradcam.layers.rule_table import RuleTable

Shape: TypeAlias = tuple[int, ...]


class Operand(NamedTuple):
    """An input of an operation.

    Args:
        shape: Its shape.
        centers: Its receptive field centers.
    """

    shape: Shape
    centers: TensorCenters


Rule: TypeAlias = Callable[[Any, Shape, Sequence[Operand]], TensorCenters]
"""A function of the node, the shape of its output and its inputs that returns the centers of its output."""


def combine(shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of an elementwise operation, of a concatenation of channels, or of an unknown operation.

    Inputs of the same size as the output share its centers. If there is none along an axis, the operation has padded,
    cropped or resized it. Inputs of size 1 are broadcast and have no position.
    """
    alike = [operand for operand in inputs if len(operand.shape) == len(shape)]
    return tuple(_combine_axis(axis, length, alike) for axis, length in enumerate(shape))


def _combine_axis(axis: int, length: int, inputs: Sequence[Operand]) -> AxisCenters | None:
    """Return the centers along one axis, see `combine`."""
    same = [operand.centers[axis] for operand in inputs if operand.shape[axis] == length > 1]
    if any(same):
        return average(same)
    for operand in inputs:
        centers = operand.centers[axis]
        if centers and length > 1 and operand.shape[axis] > 1:
            return fit(centers, operand.shape[axis], length)
    return None


def slide_windows(windows: Sequence[Window], operand: Operand, shape: Shape, transposed: bool = False) -> TensorCenters:
    """Return the centers of a convolution or pooling along the last axes; earlier axes do not follow the image."""
    slide, first = Window.transpose if transposed else Window.slide, -len(windows)
    axes = zip(windows, operand.centers[first:], operand.shape[first:], shape[first:], strict=True)
    located = [centers and slide(window, centers, length, count) for window, centers, length, count in axes]
    return (*[None] * (len(shape) - len(windows)), *located)


def convolve(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a convolution's output."""
    spatial = len(node._saved_stride)
    kernel = inputs[1].shape[-spatial:]
    windows = map(Window, kernel, node._saved_stride, node._saved_padding, node._saved_dilation)
    return slide_windows(list(windows), inputs[0], shape, node._saved_transposed)


def pool(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a pooling's output."""
    kernel = node._saved_kernel_size
    stride, dilation = node._saved_stride or kernel, getattr(node, "_saved_dilation", (1,) * len(kernel))
    return slide_windows(list(map(Window, kernel, stride, node._saved_padding, dilation)), inputs[0], shape)


def pad(node: Any, _shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a padded tensor; the amounts are given from the last axis to the first."""
    amounts = node._saved_pad if hasattr(node, "_saved_pad") else node._saved_padding
    centers = list(inputs[0].centers)
    for i, amount in enumerate(amounts[::2], start=1):
        axis = centers[-i]
        centers[-i] = axis and axis.at(-amount, 1)
    return tuple(centers)


def resize(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a resized tensor."""
    aligns_corners = getattr(node, "_saved_align_corners", False)

    def resize_axis(centers: AxisCenters | None, length: int, new_length: int) -> AxisCenters | None:
        if centers is None or length == new_length:
            return centers
        if aligns_corners and min(length, new_length) > 1:
            return centers.at(0, (length - 1) / (new_length - 1))
        return rescale(centers, length, new_length)

    return tuple(map(resize_axis, inputs[0].centers, inputs[0].shape, shape))


def crop(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a slice."""
    axis, size = to_axis(node._saved_dim, len(shape)), inputs[0].shape[to_axis(node._saved_dim, len(shape))]
    start = to_signed(node._saved_start)
    start = min(max(start + size if start < 0 else start, 0), size)
    centers = list(inputs[0].centers)
    axis_centers = centers[axis]
    centers[axis] = axis_centers and axis_centers.at(start, node._saved_step)
    return tuple(centers)


def flip(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a flipped tensor."""
    axes = {to_axis(dim, len(shape)) for dim in node._saved_dims}
    return tuple(
        centers.at(shape[axis] - 1, -1) if centers and axis in axes else centers
        for axis, centers in enumerate(inputs[0].centers)
    )


def permute(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a tensor with its axes in another order."""
    return tuple(inputs[0].centers[to_axis(dim, len(shape))] for dim in node._saved_dims)


def transpose(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a tensor with two axes exchanged."""
    first, second = (to_axis(dim, len(shape)) for dim in (node._saved_dim0, node._saved_dim1))
    centers = list(inputs[0].centers)
    centers[first], centers[second] = centers[second], centers[first]
    return tuple(centers)


def insert_axis(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a tensor with a new axis."""
    axis = to_axis(node._saved_dim, len(shape))
    centers = average_tensors(inputs)
    return (*centers[:axis], None, *centers[axis:])


def average_tensors(inputs: Sequence[Operand]) -> TensorCenters:
    """Return the mean of the centers of tensors of one shape."""
    return tuple(map(average, zip(*(operand.centers for operand in inputs), strict=True)))


def remove_axis(node: Any, _shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a tensor without the axis that was selected from, or without axes of size 1."""
    operand, is_selected = inputs[0], hasattr(node, "_saved_index")
    dims = getattr(node, "_saved_dim", range(len(operand.shape)))
    removed = {to_axis(dim, len(operand.shape)) for dim in ([dims] if isinstance(dims, int) else dims)}
    return tuple(
        centers
        for axis, (size, centers) in enumerate(zip(operand.shape, operand.centers, strict=True))
        if axis not in removed or (size != 1 and not is_selected)
    )


def view(_node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of a reshaped tensor: first and last axes of the same size are still the same."""
    operand = inputs[0]
    centers: list[AxisCenters | None] = [None] * len(shape)
    for axis in range(min(len(shape), len(operand.shape))):
        if shape[axis] != operand.shape[axis]:
            break
        centers[axis] = operand.centers[axis]
    for axis in range(1, 1 + min(len(shape), len(operand.shape))):
        if shape[-axis] != operand.shape[-axis]:
            break
        centers[-axis] = operand.centers[-axis]
    return tuple(centers)


def concatenate(node: Any, shape: Shape, inputs: Sequence[Operand]) -> TensorCenters:
    """Return the centers of concatenated or split tensors: along that axis, they no longer follow the image."""
    axis = to_axis(node._saved_dim, len(shape))
    return tuple(None if i == axis else centers for i, centers in enumerate(combine(shape, inputs)))


def forget(_node: Any, shape: Shape, _inputs: Sequence[Operand]) -> TensorCenters:
    """Return no centers: the operation mixes positions, or whether it does cannot be seen."""
    return (None,) * len(shape)


CENTER_RULES: RuleTable[Rule] = RuleTable(
    {
        r"Convolution(Overrideable)?": convolve,
        r"(Mkldnn)?(Max|Avg)Pool\dD(WithIndices)?": pool,
        r"(ConstantPadNd|(Reflection|Replication)Pad\dD)": pad,
        r"(Upsample\w+|(Mkldnn)?Adaptive\w+)": resize,
        r"Slice": crop,
        r"Flip": flip,
        r"Permute": permute,
        r"Transpose": transpose,
        r"(Unsqueeze|Stack)": insert_axis,
        r"(Squeeze|Select)": remove_axis,
        r"(View|UnsafeView|ReshapeAlias)": view,
        r"(Cat|(Unsafe)?Split\w*)": concatenate,
        r"(Mm|Addmm|Bmm|Baddbmm|Mv|Unbind|ScaledDotProduct\w+|Im2Col|Col2Im)": forget,
    }
)
"""The rules; an operation without one combines its inputs."""


def to_signed(number: int) -> int:
    """Return the integer that autograd saved as an unsigned number of 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


def to_axis(dim: int, dimensions: int) -> int:
    """Return an axis counted from the first."""
    return to_signed(dim) % dimensions
