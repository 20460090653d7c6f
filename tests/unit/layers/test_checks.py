"""Models and layers that cannot be explained: every error names the reason."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from torch import nn

from lightning_gradcam import Layer, NotExplainableError, explain, recommended_layers
from tests.helpers.models import (
    perturbed,
    plain_cnn,
)
from tests.helpers.token_models import TokenViT

tv = torchvision.models


class Session:
    """As an ONNX session."""


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that TorchScript is deprecated
        return torch.jit.trace(plain_cnn().eval(), torch.rand(2, 3, 12, 12))


def quantized(to_the_end):
    """A model whose body is quantized, or all of it."""
    from torch.ao import quantization

    body, head = [nn.Conv2d(3, 4, 3), nn.ReLU()], [nn.Flatten(), nn.Linear(400, 3)]
    model = nn.Sequential(nn.Sequential(quantization.QuantStub(), *body, *(head if to_the_end else [])))
    model.extend([quantization.DeQuantStub(), *([] if to_the_end else head)]).eval()
    model[0].qconfig = model[1].qconfig = quantization.get_default_qconfig(
        torch.backends.quantized.supported_engines[-1]
    )
    quantization.prepare(model, inplace=True)
    model(torch.rand(2, 3, 12, 12))
    return quantization.convert(model, inplace=True)


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), nn.Linear(400, 3)

    def forward(self, images):
        return self.head(self.body(images).detach().flatten(1))


class Guarded(Detached):
    """The functions behind its map, or what makes the map as well, in a block of its own."""

    def __init__(self, block, whole):
        super().__init__()
        self.block, self.whole = block, whole

    def forward(self, images):
        found = None if self.whole else self.body(images)
        with self.block():
            flat = (self.body(images) if self.whole else found).flatten(1) * 1
        return self.head(flat)


class Functional(nn.Module):
    def forward(self, images):
        return images.flatten(2).mean(2)


class Beside(nn.Module):
    """Two branches, of which the score is computed from one."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = plain_cnn(), nn.Conv2d(3, 4, 3)

    def forward(self, images):
        self.unused(images)
        return self.used(images)


@pytest.mark.parametrize(("make", "error", "message"), [
    (Session, TypeError, r"a torch\.nn\.Module, but got Session.* pass the module that was exported"),
    (scripted, NotExplainableError, r"is a TorchScript module and does not support hooks\. Pass the eager model"),
    (lambda: nn.Sequential(scripted()), NotExplainableError,
     r"no module returns a.*this model, 0 is a TorchScript module"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 3)), NotExplainableError, r"no module returns a spatial"),
    (Detached, NotExplainableError, r"no gradient .* reaches the 2 spatial outputs\. .* A detach, .* cuts it off"),
    (lambda: Guarded(torch.no_grad, False), NotExplainableError, r"A detach, a later no_grad, .* cuts it off"),
    (lambda: Guarded(torch.inference_mode, True), NotExplainableError, r"an inference_mode or .* from `forward`"),
    (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 3)), NotExplainableError,
     r"the only spatial outputs are poolings, or the scores of pixels\. .*: 0 \[2, 3, 6, 6\].*Name one in `layers=`"),
    (Functional, NotExplainableError, r"no module returns a tensor .*Functions, and .* an exported model"),
])  # fmt: skip
def test_unexplainable_model_raises_error_with_reason(make, error, message):
    model, images = make(), torch.rand(2, 3, 12, 12)
    for ask in (explain, recommended_layers):
        with pytest.raises(error, match=message):
            ask(model, images)


@pytest.mark.filterwarnings("ignore")  # PyTorch says that its quantisation moves elsewhere
def test_quantized_model_raises_error_with_remedy():
    images = torch.rand(2, 3, 12, 12)
    for ask in (explain, recommended_layers):
        with pytest.raises(NotExplainableError, match=r"In this model, 0\.\d is quantized, and .*floating-point model"):
            ask(quantized(to_the_end=True), images)
    with pytest.raises(
        NotExplainableError, match=r"Layer '0.1' returned no floating.* In this model, 0\.\d is quantized"
    ):
        explain(quantized(to_the_end=True), images, layers="0.1")
    behind = explain(quantized(to_the_end=False), images)
    assert list(behind.evidence) == ["1"]  # what was turned back into floating-point numbers has a gradient


def test_named_layer_is_explained_though_rules_skip_it():
    pooled = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 3))
    assert explain(pooled, torch.rand(2, 3, 12, 12), layers="0").evidence["0"].shape == (2, 6, 6)
    whole = explain(Guarded(torch.no_grad, True), torch.rand(2, 3, 12, 12), layers="body.0")  # no_grad is lifted there
    assert whole.evidence["body.0"].any()


def test_layer_without_gradient_raises_error_with_reason():
    vit, images = perturbed(TokenViT()), torch.rand(2, 3, 16, 24)
    with pytest.raises(
        NotExplainableError,
        match=r"reaches layer 'norm' \(.*than its patch tokens\).*recommended_layers",
    ):
        explain(vit, images, layers="norm")
    with pytest.raises(
        NotExplainableError, match=r"reaches layer 'unused' \(a detach, a no_grad, .* is computed without it\)"
    ):
        explain(Beside(), torch.rand(2, 3, 12, 12), layers="unused")
    first = lambda tokens: tokens[:, :1].transpose(1, 2)  # noqa: E731
    read = explain(vit, images, layers=Layer("norm", to_grid=lambda tokens: first(tokens)[..., None]))
    assert read.evidence["norm"].shape == (2, 1, 1)  # how users read it is theirs
    free = explain(vit, images, layers="norm", method=lambda passes: {"norm": passes.activations["norm"].sum(1)})
    assert free.evidence["norm"].shape == (2, 4, 6)  # and what needs no gradient needs no reach


def test_layers_without_spatial_output_raise_error():
    images = torch.randn(2, 3, 16, 16)
    unused = nn.ModuleDict({"used": plain_cnn(), "spare": nn.Conv2d(3, 3, 1)})
    with pytest.raises(NotExplainableError, match=r"'spare' returned no floating-point tensor.*did not run"):
        explain(unused, images, layers="spare", forward=lambda model, probe: model["used"](probe.images))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(NotExplainableError, match=r"no module returns a spatial output.*`layers=Layer\(name, to_grid="):
        explain(flat, images)
    pooled = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(NotExplainableError, match="the only spatial outputs are poolings"):
        explain(pooled, images)


def test_torchscript_layer_raises_error_with_remedy():
    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that TorchScript is deprecated
        part = torch.jit.trace(model[:6].eval(), images)
    with pytest.raises(
        NotExplainableError,
        match=r"Layer '0' is a TorchScript module .*Replace it with its eager module\.",
    ):
        explain(nn.Sequential(part, *model[6:]), images, layers="0")
