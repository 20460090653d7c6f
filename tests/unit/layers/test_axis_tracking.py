"""Models of signals that work on ``(n, L, C)`` or ``(L, n, C)`` inside: the sequence axis of every layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_gradcam import Layer, NotExplainableError, Probe, explain
from lightning_gradcam.capture.layouts import Tokens, channels_first
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.targets import TARGETS
from tests.helpers.models import assert_close, perturbed, plain_gradcam
from tests.helpers.sequences import ConvNext, Inverted, Mixer, Patches, Pooled, Recurrent, ResNet, Transformer, Turn

FIRST, MIDDLE, FRONT = channels_first, Tokens((20,)), Tokens((20,), rows=1)

CHOSEN = {
    "transformer": (lambda: Transformer(token=False), "norm", MIDDLE),
    "its queries": (lambda: Transformer(norm_first=True), "encoder.layers.1.norm1", Tokens((20,), 1)),
    "class token": (Transformer, "encoder.layers.0", Tokens((20,), 1)),
    "places in front": (lambda: Transformer(batch_first=False), "encoder.layers.0", Tokens((20,), 1, rows=1)),
    "as many places": (lambda: Transformer(width=20, token=False), "norm", MIDDLE),
    "as many tokens": (lambda: Transformer(width=21), "encoder.layers.0", Tokens((20,), 1)),
    "a token between": (lambda: Transformer(width=24), "encoder.layers.0", Tokens((20,), 1)),
    "lstm": (lambda: Recurrent(stem=False), "rnn", Tokens((100,))),
    "lstm, last step": (lambda: Recurrent(pool="last"), "rnn", MIDDLE),
    "cnn-lstm": (Recurrent, "rnn", MIDDLE),
    "cnn-lstm, places in front": (lambda: Recurrent(batch_first=False), "rnn", FRONT),
    "square gru": (lambda: Recurrent(width=20, kind=nn.GRU), "rnn", MIDDLE),
    "mixer": (Mixer, "norm", MIDDLE),
    "square mixer": (lambda: Mixer(width=20, copy=True), "norm", MIDDLE),
    "resnet": (lambda: ResNet(8), "blocks", FIRST),
    "square resnet": (ResNet, "blocks", FIRST),
    "convnext": (lambda: ConvNext(8), "blocks", FIRST),
    "square convnext": (ConvNext, "blocks", FIRST),
    "patches": (Patches, "embed", Tokens((10,))),
    "inverted": (Inverted, "stem", FIRST),
    "pooled": (Pooled, "to_map", FIRST),
}


def located(model, signals, layers="auto"):
    return prepare(model, Probe(signals), target=TARGETS["predicted"], layers=layers)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", CHOSEN)
def test_last_sequence_is_chosen_and_evidence_is_autograds(name, rows):
    make, layer, to_grid = CHOSEN[name]
    model, signals, classes = perturbed(make()), torch.randn(rows, 2, 100), [1, 3, 0][:rows]
    found = explain(model, signals, target=classes)
    assert {key: where.to_grid for key, where in found.layers.items()} == {layer: to_grid}
    inner = f"{layer}.1" if layer == "blocks" else layer
    tensors = taken(model, inner, signals, classes)
    if to_grid is not channels_first:
        in_rows = (tensor.movedim(to_grid.rows, 0)[:, to_grid.extra :] for tensor in tensors)
        tensors = (tensor.transpose(1, 2) for tensor in in_rows)
    assert_close(found.evidence[layer], plain_gradcam(*tensors), 1e-4)
    named = explain(model, signals, layers=layer, target=classes)
    assert torch.equal(named.evidence[layer], found.evidence[layer])


def taken(model, layer, signals, classes):
    """Activations and gradients in float64; of a recurrent network, those of its sequence."""
    model, kept = copy.deepcopy(model).double(), []

    def keep(module, args, output):
        kept.append(output[0] if isinstance(output, tuple) else output)

    model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        scores = model(signals.double())[torch.arange(len(signals)), torch.tensor(classes)]
        kept[-1].retain_grad()
        scores.sum().backward()
    return kept[-1].detach(), kept[-1].grad


def read(model, signals=None):
    """How every layer is read, by its name; None where it has no places or they cannot be told."""
    shapes = located(model, torch.randn(3, 2, 100) if signals is None else signals).records
    return {s.name: s.to_grid if s.grid else None for s in shapes if len(s.shape) == 3}


def test_every_layer_of_transformer_and_mixer_is_read():
    for settings in ({}, {"width": 20}, {"width": 21}, {"batch_first": False}, {"norm_first": True}):
        model = perturbed(Transformer(**settings))
        stem, *others = read(model).values()
        rows = 0 if settings.get("batch_first", True) else 1
        if rows:  # the norm behind the encoder has the images in front again
            assert others.pop() == Tokens((20,), 1)
        assert (stem, set(others)) == (FIRST, {Tokens((20,), 1, rows)})
    for width in (8, 20):
        found = read(perturbed(Mixer(width)))
        assert found.pop("stem") is FIRST
        for block in ("blocks.0", "blocks.1"):
            assert found.pop(f"{block}.places.0") is found.pop(f"{block}.places.1") is None  # of an order of their own
            assert found.pop(f"{block}.places") is FIRST
        assert set(found.values()) == {MIDDLE}


def test_every_layer_of_convnext_and_transposed_tokens():
    for width in (8, 20):
        found = read(perturbed(ConvNext(width)))
        first = {name for name in found if name.split(".")[-1] in ("stem", "conv", "0", "blocks")}
        assert {name for name, to_grid in found.items() if to_grid is FIRST} == first
        assert {found[name] for name in found.keys() - first} == {MIDDLE}
    for copied in (False, True):
        found = read(perturbed(Pooled(copied)))
        assert {name for name, to_grid in found.items() if to_grid is not FIRST} == {
            "to_tokens",
            "norm",
            "mlp.0",
            "mlp",
        }


def test_ambiguous_sequences_are_not_read():
    model, signals = perturbed(Mixer(20, copy=True)), torch.randn(3, 2, 100)
    found = read(model, signals)  # a copy of 20 channels and 20 places shows nothing of what was turned
    assert {name for name, to_grid in found.items() if to_grid is None} == {
        f"blocks.{block}.places{part}" for block in (0, 1) for part in ("", ".0", ".1")
    }
    with pytest.raises(ValueError, match=r"'blocks\.1\.places' returns \[2, 20, 20\]\. .*pass `Layer\(name, to_grid="):
        explain(model, signals, layers="blocks.1.places")
    told = explain(model, signals, layers=Layer("blocks.1.places", to_grid=lambda x: x.clone()))
    assert told.evidence["blocks.1.places"].shape == (3, 20)
    assert set(read(perturbed(Inverted())).values()) == {FIRST, None}  # channels as tokens


class Own(nn.Module):
    """Modules of one's own: what they do is only seen by what goes in and comes out."""

    def __init__(self, *functions) -> None:
        super().__init__()
        self.steps = nn.Sequential(*(Step(function) for function in functions))
        self.norm, self.head = nn.BatchNorm1d(2), nn.LazyLinear(4)

    def forward(self, signals):
        return self.head(self.steps(self.norm(signals)).flatten(1))


class Step(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_custom_modules_are_read_by_sizes():
    kernel, wide, sharp = torch.randn(7, 2, 5), torch.randn(2, 6), torch.randn(30, 2, 8)
    turn = lambda x: x.transpose(1, 2)  # noqa: E731
    for steps, grids in [
        ([torch.tanh, lambda x: x * 2], [FIRST, FIRST]),
        ([lambda x: nn.functional.conv1d(x, kernel, padding=2)], [FIRST]),  # as many places
        ([lambda x: turn(x).contiguous().tanh()], [Tokens((100,))]),  # the sizes were exchanged
        ([lambda x: torch.cat([turn(x)[:, :2], turn(x)], 1)], [Tokens((100,), 2)]),
        ([lambda x: turn(x) @ wide], [Tokens((100,))]),
        ([lambda x: nn.functional.max_pool1d(x, 2)], [FIRST]),  # as many channels
        ([lambda x: turn(x)[:, :60], lambda x: turn(x).tanh()], [None, FIRST]),  # 60 of what
        ([lambda x: nn.functional.conv1d(x, sharp, stride=4)], [None]),  # 30 channels or 30 places
        ([lambda x: x.reshape(len(x), 10, 20)], [None]),
    ]:
        model, signals = Own(*steps).eval(), torch.randn(3, 2, 100)
        model(signals)
        found = read(model, signals)
        assert [found[name] for name in found if name != "norm"] == grids
    with pytest.raises(NotExplainableError, match=r"positions in the images are unknown"):
        explain(nn.Sequential(Step(lambda x: x.reshape(len(x), 10, 20)), nn.Flatten(), nn.Linear(200, 3)), signals)


def test_patches_of_custom_module_are_first_tokens():
    cut = Step(lambda x: x.unfold(2, 10, 10).transpose(1, 2).flatten(2))
    model, signals = (
        nn.Sequential(cut, nn.Linear(20, 8), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)),
        torch.randn(3, 2, 100),
    )
    model(signals)
    [layer] = located(model, signals).layers
    assert (layer.name, layer.to_grid) == ("2", Tokens((10,)))
    # Behind other tokens, ten of what stay unread.
    turned = nn.Sequential(Turn(), nn.Unflatten(1, (10, 10)), nn.Flatten(2), *model[1:])
    [layer] = located(turned, signals).layers
    assert (layer.name, layer.to_grid) == ("0", Tokens((100,)))
    assert "4 later layers return sequences (the last one, 4, returns [2, 10, 8])" in layer.reason


class Between(nn.Module):
    """What the model does by itself, between its modules."""

    def __init__(self, between, *modules) -> None:
        super().__init__()
        self.stem, self.between, self.body, self.head = (
            nn.Conv1d(2, 20, 5, 5),
            between,
            nn.Sequential(*modules),
            nn.LazyLinear(4),
        )

    def forward(self, signals):
        return self.head(self.body(self.between(self.stem(signals))).flatten(1))


def test_functions_between_modules_are_read_by_sizes():
    turn = lambda x: x.transpose(1, 2)  # noqa: E731
    token = lambda x: torch.cat([turn(x)[:, :1], turn(x)], 1)  # noqa: E731
    for length, between, modules, grids in [
        (100, lambda x: x + 1, [nn.ReLU()], [FIRST]),  # 20 of 20: as the latest
        (100, lambda x: turn(x) + 1, [nn.ReLU()], [None]),  # the memory shows that it is none of before
        (100, lambda x: turn(x) + 1, [nn.LayerNorm(20), nn.ReLU()], [MIDDLE, MIDDLE]),
        (75, lambda x: x + 1, [nn.LayerNorm((20, 15))], [FIRST]),  # over places and channels
        (75, token, [Step(torch.tanh), nn.Linear(20, 8)], [Tokens((15,), 1)] * 2),
        (
            75,
            lambda x: turn(x) + 1,
            [nn.BatchNorm1d(15), nn.MaxPool1d(2)],
            [Tokens((15,))] * 2,
        ),  # of channels, by mistake
        (100, lambda x: x + 1, [ConvNext(20).blocks[0]], [FIRST, MIDDLE, MIDDLE, MIDDLE, MIDDLE, None]),  # or the other
    ]:
        model = Between(between, *modules).eval()
        model(torch.randn(3, 2, length))
        stem, *found = read(model, torch.randn(3, 2, length)).values()
        assert (stem, found) == (FIRST, grids)


def test_sequences_without_convolution_are_read():
    turn = lambda x: x.transpose(1, 2)  # noqa: E731
    tokens = nn.Sequential(Step(lambda x: torch.cat([turn(x)[:, :1], turn(x)], 1)), nn.LayerNorm(2), nn.Flatten())
    signals = torch.randn(3, 2, 100)
    assert set(read(nn.Sequential(*tokens, nn.Linear(202, 3)), signals).values()) == {Tokens((100,), 1)}
    square = nn.Sequential(Turn(), nn.Tanh(), nn.Flatten(), nn.Linear(400, 3))  # nothing but the memory tells
    assert set(read(square, torch.randn(3, 20, 20)).values()) == {MIDDLE}


def test_channels_as_batch_are_not_read():
    alone = nn.Sequential(
        Step(lambda x: x.reshape(-1, 1, 100)), nn.Conv1d(1, 2, 5), Step(lambda x: x.reshape(-1, 2 * 192))
    )
    model = nn.Sequential(nn.Conv1d(2, 2, 1), *alone, nn.Linear(384, 3))
    found = read(model, torch.randn(2, 2, 100))
    assert found["0"] is FIRST
    assert found["2"] is None  # (4, 2, 96), of four channels and not of two signals
