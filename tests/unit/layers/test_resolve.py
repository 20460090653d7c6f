"""Every form of the `layers` argument, and its errors."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import Layer, NotExplainableError, explain
from lightning_gradcam.layers import check_layers
from tests.helpers.models import (
    TinyResNet,
    assert_close,
    full_autograd,
    of_class,
    perturbed,
    plain_cnn,
    plain_gradcam,
)
from tests.helpers.token_models import Shared

tv = torchvision.models


def test_layers_argument_accepts_every_form():
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)

    def first(shapes):
        return [Layer(shapes[0].name, reason="the first")]

    for said, names in [
        ("layer1", ["layer1"]),
        (model.layer1, ["layer1"]),
        (Layer("layer1"), ["layer1"]),
        (["layer2.conv1", model.layer1], ["layer2.conv1", "layer1"]),
        (first, ["layer1.conv1"]),
        ("layer2.relu", ["layer2.relu"]),  # returns the same tensor as layer2
    ]:
        found = explain(model, images, layers=said, target=1)
        assert list(found.evidence) == names
        for name in names:
            expected = plain_gradcam(*full_autograd(model, name, images, of_class(1)))
            assert_close(found.evidence[name], expected)
        check_layers(said, model)


def test_wrong_layers_raise_error_with_choices():
    model, images = TinyResNet(), torch.randn(2, 3, 16, 16)
    for error, message, layers in [
        (ValueError, r"'layr2'\. Did you mean 'layer2'", "layr2"),
        (ValueError, r"'bn2'\. Did you mean 'layer1\.bn2' or 'layer2\.bn2'", "bn2"),
        (ValueError, r"'stage'\. Did you mean 'stages'", "stage"),
        (ValueError, r"'layer9'", ["layer1", "layer9"]),
        (ValueError, r"a module inside the model, but got a ReLU", nn.ReLU()),
        (ValueError, r"'fc' returns \[2, 5\]\. Choose another layer, or pass `Layer\(name, to_grid=", "fc"),
        (ValueError, r"at least one layer", []),
        (TypeError, r"but got 3", [3]),
        (NotExplainableError, r"chose no layer", lambda shapes: []),
    ]:
        with pytest.raises(error, match=message):
            explain(model, images, layers=layers)


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_to_grid_of_user_reads_tokens():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.Flatten(2), Swap(), nn.Linear(8, 8), nn.Flatten(), nn.Linear(45 * 8, 3)
    )
    images = torch.randn(2, 3, 11, 19)

    def to_grid(tokens):
        return tokens.transpose(1, 2).unflatten(2, (5, 9))

    found = explain(perturbed(model), images, layers=Layer("3", to_grid=to_grid), target=0)
    assert_close(found.evidence["3"], plain_gradcam(*map(to_grid, full_autograd(model, "3", images, of_class(0)))))
    assert_close(explain(model, images, target=0).evidence["3"], found.evidence["3"])  # found without being told
    mixed = nn.Sequential(model[0], nn.Flatten(2), nn.Linear(45, 20), nn.Flatten(), nn.Linear(160, 3))
    said = explain(mixed, images).layers["0"].reason
    assert "2 later layers return sequences (the last one, 2, returns [2, 8, 20])" in said


def test_layer_names_of_compiled_model_are_unchanged():
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)
    compiled = torch.compile(model)
    found = explain(compiled, images, target=1)
    assert list(found.evidence) == ["layer2"]
    assert_close(found.evidence["layer2"], explain(model, images, target=1).evidence["layer2"])


def test_every_call_of_layer_has_own_grid():
    model, images = perturbed(Shared()), torch.randn(2, 3, 16, 24)
    calls = [Layer("act", call=0), Layer("act", call=1), Layer("act")]
    found = explain(model, images, layers=calls, target=3)
    kept = []
    unrolled = copy.deepcopy(model).double()
    unrolled.act.register_forward_hook(lambda module, args, output: kept.append(output))
    scores = unrolled(images.double().requires_grad_())[:, 3].sum()
    first, last = ((tensor, grad) for tensor, grad in zip(kept, torch.autograd.grad(scores, kept), strict=True))
    expected = plain_gradcam(*(t.transpose(1, 2).unflatten(2, (4, 6)).detach() for t in last))
    assert_close(found.evidence["act[0]"], plain_gradcam(first[0].detach(), first[1]))
    assert_close(found.evidence["act[1]"], expected)
    assert_close(found.evidence["act"], expected)


def test_layers_of_wrong_type_raise_error():
    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    for layers in (None, 4):
        for ask in (lambda said: explain(model, images, layers=said), lambda said: check_layers(said, model)):
            with pytest.raises(TypeError, match=f"a module, a Layer or a rule, or a list of these, but got {layers}"):
                ask(layers)
