"""Every rule that infers axes, alone and in order of precedence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam.layers.axes import CHANNELS_FIRST, Axes, LocatedTensor
from lightning_gradcam.layers.axis_rules import (
    AXIS_RULES,
    UNDECIDED,
    TensorContext,
    infer_axes,
    linear_on_ambiguous_input,
    module_that_may_mix_positions,
    module_with_fixed_layout,
    same_shape_as_earlier,
    same_shape_as_inner_output,
    same_shape_as_input,
    same_tensor_or_view,
    unique_size_match,
)
from lightning_gradcam.layers.tensor_history import TensorHistory, TensorOrigin

CHANNELS_LAST = Axes(0, 1)
SIGNALS = torch.zeros(2, 3, 10)


class Custom(nn.Module):
    """A module that is not PyTorch's."""


def context(returned, *inputs, maker=None, outputs=(), first_inner=None):
    history = TensorHistory(SIGNALS, [LocatedTensor(*output) for output in outputs])
    first_inner = len(outputs) if first_inner is None else first_inner
    return TensorContext(TensorOrigin(maker or Custom(), returned, returned.clone(), inputs, first_inner), history)


def test_same_tensor_or_view_takes_axes_of_source():
    tokens = torch.zeros(2, 10, 8)
    known = [(tokens, CHANNELS_LAST)]
    assert same_tensor_or_view(context(tokens, outputs=known)) == CHANNELS_LAST
    assert same_tensor_or_view(context(tokens.transpose(1, 2), outputs=known)) == CHANNELS_FIRST
    assert same_tensor_or_view(context(tokens.transpose(0, 1), outputs=known)) == Axes(1, 0)
    assert same_tensor_or_view(context(SIGNALS)) == CHANNELS_FIRST
    assert same_tensor_or_view(context(tokens, outputs=[(tokens, None)])) is None
    assert same_tensor_or_view(context(tokens.clone(), outputs=known)) is UNDECIDED


def test_linear_on_ambiguous_input_is_rejected():
    square, linear = torch.zeros(2, 8, 8), nn.Linear(8, 8)
    known = [(square, CHANNELS_LAST)]
    assert linear_on_ambiguous_input(context(torch.zeros(2, 8, 8), square.clone(), maker=linear, outputs=known)) is None
    unread = [(square, None), (torch.zeros(2, 10, 8), CHANNELS_LAST)]
    assert linear_on_ambiguous_input(context(torch.zeros(2, 8, 8), square, maker=linear, outputs=unread)) is None
    for decided in (
        context(torch.zeros(2, 8, 8), square, maker=linear, outputs=known),  # the input itself is known
        context(torch.zeros(2, 8, 8), square.clone(), maker=nn.LayerNorm(8), outputs=known),
        context(torch.zeros(2, 8, 8), square, maker=linear, outputs=[(square, None)]),  # the first tokens of all
    ):
        assert linear_on_ambiguous_input(decided) is UNDECIDED


def test_same_shape_as_input_takes_axes_of_input():
    tokens = torch.zeros(2, 10, 8)
    known = [(tokens, CHANNELS_LAST)]
    assert same_shape_as_input(context(tokens + 1, SIGNALS, tokens, outputs=known)) == CHANNELS_LAST
    assert same_shape_as_input(context(tokens + 1, tokens.clone(), outputs=known)) == CHANNELS_LAST  # by size
    assert same_shape_as_input(context(torch.zeros(2, 10, 4), tokens, outputs=known)) is UNDECIDED


@pytest.mark.parametrize(("maker", "shape", "axes"), [
    (nn.Conv1d(7, 8, 1), (2, 8, 5), CHANNELS_FIRST),
    (nn.BatchNorm1d(8), (2, 8, 5), CHANNELS_FIRST),
    (nn.Linear(7, 8), (2, 5, 8), CHANNELS_LAST),
    (nn.LayerNorm(8), (5, 2, 8), Axes(1, 0)),
    (nn.LSTM(7, 8, batch_first=True), (2, 5, 8), CHANNELS_LAST),
    (nn.LSTM(7, 8), (2, 5, 8), Axes(1, 0)),
    (nn.LayerNorm((5, 8)), (2, 5, 8), UNDECIDED),
    (Custom(), (2, 5, 8), UNDECIDED),
])  # fmt: skip
def test_module_with_fixed_layout_takes_layout(maker, shape, axes):
    assert module_with_fixed_layout(context(torch.zeros(shape), torch.zeros(2, 6, 7), maker=maker)) == axes
    known = context(torch.zeros(shape), SIGNALS, maker=maker)
    assert module_with_fixed_layout(known) is UNDECIDED  # as the axes of its input are known


@pytest.mark.parametrize(("maker", "axes", "is_mixed"), [
    (nn.Linear(10, 8), CHANNELS_FIRST, True),
    (nn.Linear(8, 4), CHANNELS_LAST, False),
    (nn.Conv1d(10, 8, 1), CHANNELS_LAST, True),
    (nn.Conv1d(8, 4, 1), CHANNELS_FIRST, False),
    (nn.MaxPool1d(2), CHANNELS_LAST, False),
])  # fmt: skip
def test_module_that_may_mix_positions_marks_axes(maker, axes, is_mixed):
    shape = (2, 8, 10) if axes == CHANNELS_FIRST else (2, 10, 8)
    source = torch.zeros(shape)
    known = context(torch.zeros(2, 6, 4), source, maker=maker, outputs=[(source, axes)])
    assert module_that_may_mix_positions(known) == axes._replace(is_mixed=is_mixed)
    mixed = context(torch.zeros(2, 6, 4), source, maker=maker, outputs=[(source, axes._replace(is_mixed=True))])
    assert module_that_may_mix_positions(mixed) == axes._replace(is_mixed=True)


def test_module_that_may_mix_positions_needs_layout_and_input():
    assert module_that_may_mix_positions(context(torch.zeros(2, 6, 4), SIGNALS)) is UNDECIDED
    assert module_that_may_mix_positions(context(torch.zeros(2, 6, 4), maker=nn.Linear(9, 4))) is UNDECIDED


def test_same_shape_as_inner_output_takes_axes_that_agree():
    inner = [(torch.zeros(2, 8, 8), CHANNELS_LAST), (torch.zeros(2, 8, 8), CHANNELS_LAST)]
    returned = torch.zeros(2, 8, 8)
    assert same_shape_as_inner_output(context(returned, outputs=inner, first_inner=0)) == CHANNELS_LAST
    inner.append((torch.zeros(2, 8, 8), CHANNELS_FIRST))
    assert same_shape_as_inner_output(context(returned, outputs=inner, first_inner=0)) is None
    assert same_shape_as_inner_output(context(returned, outputs=inner)) is UNDECIDED  # all are from before
    assert same_shape_as_inner_output(context(torch.zeros(2, 8, 9), outputs=inner, first_inner=0)) is UNDECIDED


def test_unique_size_match_takes_only_fit():
    assert unique_size_match(context(torch.zeros(2, 10, 3), SIGNALS)) == CHANNELS_LAST
    assert unique_size_match(context(torch.zeros(2, 12, 3), SIGNALS)) == CHANNELS_LAST  # with two extra tokens
    assert unique_size_match(context(torch.zeros(2, 10, 7), SIGNALS)) == CHANNELS_LAST  # as many positions
    assert unique_size_match(context(torch.zeros(2, 3, 5), SIGNALS)) == CHANNELS_FIRST  # as many channels
    assert unique_size_match(context(torch.zeros(2, 7, 5), SIGNALS)) is None
    assert unique_size_match(context(torch.zeros(2, 10, 7))) is UNDECIDED  # without inputs
    inner = [(torch.zeros(2, 7, 5), CHANNELS_LAST)]
    assert unique_size_match(context(torch.zeros(2, 5, 7), SIGNALS, outputs=inner, first_inner=0)) == CHANNELS_FIRST


def test_same_shape_as_earlier_takes_latest_unless_transposed():
    square = [(torch.zeros(2, 8, 8), CHANNELS_FIRST), (torch.zeros(2, 8, 8), CHANNELS_LAST)]
    assert same_shape_as_earlier(context(torch.zeros(2, 8, 8), outputs=square)) == CHANNELS_LAST
    assert same_shape_as_earlier(context(torch.zeros(2, 8, 8).transpose(1, 2), outputs=square)) is None
    assert same_shape_as_earlier(context(torch.zeros(2, 8, 9), outputs=square)) is None


def test_first_rule_that_decides_wins():
    square = torch.zeros(2, 8, 8)
    view = context(square.transpose(1, 2), square, maker=nn.Conv1d(8, 8, 1), outputs=[(square, CHANNELS_FIRST)])
    assert module_that_may_mix_positions(view) == CHANNELS_FIRST
    assert infer_axes(view.origin, view.history) == CHANNELS_LAST
    assert AXIS_RULES[-1](context(torch.zeros(2, 5, 6))) is None  # the last rule always decides
