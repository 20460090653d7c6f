"""Rules that infer the axes of a module's output, in the order in which they are tried.

Each rule takes a `TensorContext` and returns the axes, None if they cannot be known, or `UNDECIDED` if the next rule
is to be tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final, Literal, TypeAlias

from torch import Tensor, nn

from lightning_gradcam.layers.axes import CHANNELS_FIRST, Axes, LocatedTensor, match_one_size, match_sizes
from lightning_gradcam.layers.tensor_history import TensorHistory, TensorOrigin

_CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
_LAYOUT_KEEPING = (
    nn.BatchNorm1d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.GroupNorm, nn.Upsample, nn.MaxPool1d, nn.AvgPool1d,
    nn.LPPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, nn.ZeroPad1d, nn.ConstantPad1d, nn.ReflectionPad1d,
    nn.ReplicationPad1d, nn.CircularPad1d,
)  # fmt: skip
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.RNNBase, nn.MultiheadAttention)


class _Undecided(Enum):
    UNDECIDED = "undecided"


UNDECIDED: Final = _Undecided.UNDECIDED
"""Result of a rule that does not apply."""

Inference: TypeAlias = Axes | Literal[_Undecided.UNDECIDED] | None
"""Result of a rule."""


@dataclass
class TensorContext:
    """Facts about a module's output that the rules share.

    Args:
        origin: Origin of the output.
        history: The tensors before it.
    """

    origin: TensorOrigin
    history: TensorHistory

    @cached_property
    def layout(self) -> Axes | None:
        """Axes on which a layer of PyTorch works, whatever its input is; None for other modules."""
        maker, returned = self.origin.maker, self.origin.returned
        if isinstance(maker, (*_CONVOLUTIONS, *_LAYOUT_KEEPING)):
            return CHANNELS_FIRST
        if not isinstance(maker, _CHANNELS_LAST):
            return None
        if isinstance(maker, nn.LayerNorm) and len(maker.normalized_shape) > 1:
            return None
        batch_first = getattr(maker, "batch_first", returned.shape[0] == len(self.history.images))
        return Axes(0, 1) if batch_first else Axes(1, 0)

    @cached_property
    def inputs(self) -> list[LocatedTensor]:
        """Input sequences with known axes: earlier tensors, views of them, or else tensors of matching size."""
        located = [source for _, source in self._sources if source and source.axes]
        accepts_any_axis = not self.layout or isinstance(self.origin.maker, (nn.Linear, *_LAYOUT_KEEPING))
        if located or not accepts_any_axis:
            return located
        return [LocatedTensor(tensor, matches[0]) for tensor, matches in self._size_matches if len(matches) == 1]

    @cached_property
    def has_ambiguous_input(self) -> bool:
        """Whether an input is an earlier tensor without axes, or matches an earlier tensor in several layouts."""
        sources_without_axes = [source for _, source in self._sources if source and not source.axes]
        return bool(sources_without_axes) or any(len(matches) > 1 for _, matches in self._size_matches)

    @cached_property
    def inner_outputs(self) -> list[LocatedTensor]:
        """Sequences with known axes that were computed inside the module."""
        outputs = self.history.outputs[self.origin.first_inner :]
        return [output for output in outputs if output.axes and output.tensor.ndim == 3]

    @cached_property
    def _sources(self) -> list[tuple[Tensor, LocatedTensor | None]]:
        sequences = [tensor for tensor in self.origin.inputs if tensor.ndim == 3]
        return [(tensor, self.history.find_source(tensor)) for tensor in sequences]

    @cached_property
    def _size_matches(self) -> list[tuple[Tensor, list[Axes]]]:
        unknown = [tensor for tensor, source in self._sources if source is None]
        return [(tensor, match_sizes(tensor, self.history.tensors)) for tensor in unknown]


AxisRule: TypeAlias = Callable[[TensorContext], Inference]


def same_tensor_or_view(context: TensorContext) -> Inference:
    """Take the axes of the earlier tensor that the output is, or of which it is a reordered view."""
    source = context.history.find_source(context.origin.returned)
    return source.axes if source else UNDECIDED


def linear_on_ambiguous_input(context: TensorContext) -> Inference:
    """Reject the output of a linear layer whose input could be read in several layouts.

    The layer may work on channels or on positions. Without any earlier sequence it is assumed to work on channels,
    since then it computes the first tokens of all.
    """
    is_linear = isinstance(context.origin.maker, nn.Linear)
    has_earlier_axes = any(axes for _, axes in context.history.outputs)
    return None if is_linear and not context.inputs and context.has_ambiguous_input and has_earlier_axes else UNDECIDED


def same_shape_as_input(context: TensorContext) -> Inference:
    """Take the axes of the first located input that has the output's shape."""
    shape = context.origin.returned.shape
    return next((axes for tensor, axes in context.inputs if tensor.shape == shape), UNDECIDED)


def module_with_fixed_layout(context: TensorContext) -> Inference:
    """Take the layout that a layer of PyTorch requires, if its input has no known axes."""
    return context.layout if context.layout and not context.inputs else UNDECIDED


def module_that_may_mix_positions(context: TensorContext) -> Inference:
    """Take the axes of a PyTorch layer's input, and mark them as mixed if it works along the sequence.

    A linear layer along the sequence, as in MLP-Mixer, and a convolution whose channels are the positions mix them.
    Norms, poolings and padding work on every channel alone.
    """
    if not context.layout or not context.inputs:
        return UNDECIDED
    axes = context.inputs[0].axes
    if axes is None or isinstance(context.origin.maker, _LAYOUT_KEEPING):
        return axes
    mixed_axis = 1 if isinstance(context.origin.maker, _CONVOLUTIONS) else 2
    return axes._replace(is_mixed=axes.is_mixed or axes.sequence == mixed_axis)


def same_shape_as_inner_output(context: TensorContext) -> Inference:
    """Take the axes of the tensors of the same shape inside a composite module, if these agree."""
    shape = context.origin.returned.shape
    distinct = {axes for tensor, axes in context.inner_outputs if tensor.shape == shape}
    if not distinct:
        return UNDECIDED
    return distinct.pop() if len(distinct) == 1 else None


def unique_size_match(context: TensorContext) -> Inference:
    """Take the only axes that fit the sizes of what was computed inside a composite module, or else of its inputs."""
    references = context.inner_outputs or context.inputs
    if not references:
        return UNDECIDED
    returned = context.origin.returned
    tensor, axes = references[-1]
    matches = match_sizes(returned, references) or (match_one_size(returned, tensor, axes) if axes else [])
    return matches[0] if len(matches) == 1 else None


def same_shape_as_earlier(context: TensorContext) -> Inference:
    """Take the axes of the latest tensor of the same shape.

    With as many positions as channels, the shape does not show a transposition, but the memory layout does.
    """
    returned = context.origin.returned
    earlier = [axes for tensor, axes in context.history.tensors if axes and tensor.shape == returned.shape]
    return earlier[-1] if earlier and returned.is_contiguous() else None


AXIS_RULES: tuple[AxisRule, ...] = (
    same_tensor_or_view,
    linear_on_ambiguous_input,
    same_shape_as_input,
    module_with_fixed_layout,
    module_that_may_mix_positions,
    same_shape_as_inner_output,
    unique_size_match,
    same_shape_as_earlier,
)
"""Rules by precedence. The last one always decides."""


def infer_axes(origin: TensorOrigin, history: TensorHistory) -> Axes | None:
    """Return the result of the first rule that decides; None if the axes cannot be known."""
    context = TensorContext(origin, history)
    for rule in AXIS_RULES:
        axes = rule(context)
        if axes is not UNDECIDED:
            return axes
    return None
