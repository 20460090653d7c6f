"""Logits: models that end in a softmax or a sigmoid are explained before it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import (
    explain,
)
from lightning_gradcam.targets.logits import probabilities
from tests.helpers.models import assert_close, full_autograd, perturbed, plain_cnn, plain_gradcam


class Ends(nn.Module):
    """A model with something behind its scores."""

    def __init__(self, end: Callable[[Tensor], Tensor], classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(4)  # one model, whatever stands behind it
        self.body, self.end = perturbed(plain_cnn(classes=classes)), end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(5 * self.body(images))  # sure of itself, so that probabilities have hardly a gradient


ENDS = {
    "module": nn.Softmax(1),
    "function": lambda z: F.softmax(z, dim=-1),
    "method": lambda z: z.softmax(1),
    "logarithm": nn.LogSoftmax(dim=1),
    "in another precision": lambda z: torch.softmax(z, 1).double(),
    "in a dict": lambda z: {"logits": torch.softmax(z, 1)},
    "each class": nn.Sigmoid(),
    "each class, by function": torch.sigmoid,
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_logits_before_the_last_softmax_are_explained(end, grad):
    model, images = Ends(ENDS[end]), torch.randn(2, 3, 12, 12)
    plain = Ends(nn.Identity())
    with torch.set_grad_enabled(grad):
        for target in ("predicted", 3, "topk", "margin"):
            found, expected = (explain(each, images, layers="body.5", target=target) for each in (model, plain))
            for each, evidence in expected.evidence.items():
                assert_close(found.evidence[each], evidence, 1e-5)
            assert_close(found.logits, expected.logits, 1e-5)
        raw = explain(model, images, layers="body.5", target=lambda out, probe: first(out)[:, 3])
        assert not torch.allclose(
            raw.evidence["body.5"], explain(plain, images, layers="body.5", target=3).evidence["body.5"]
        )


def first(output):
    return output["logits"] if isinstance(output, dict) else output


@pytest.mark.parametrize("end", [torch.sigmoid, lambda z: torch.sigmoid(z).squeeze(1), lambda z: z.sigmoid().view(-1)])
def test_single_probability_is_explained_for_the_predicted_side(end):
    model, plain = Ends(end, classes=1), Ends(nn.Identity(), classes=1)
    images = 3 * torch.randn(8, 3, 12, 12)
    found, expected = (explain(m, images, layers="body.5", output="classes") for m in (model, plain))
    assert torch.equal(explain(model, images, layers="body.5").classes, found.classes)  # the sigmoid says so
    assert_close(found.evidence["body.5"], expected.evidence["body.5"], 1e-5)
    logit = plain(images)[:, 0]
    assert torch.equal(found.classes, (logit > 0).long())
    side = torch.where(logit > 0, 0.5, -0.5).detach()
    of = plain_gradcam(*full_autograd(plain, "body.5", images, lambda out: side.to(out) * out[:, 0]))
    assert_close(found.evidence["body.5"], of)
    assert_close(found.logits.softmax(1)[:, 1], logit.sigmoid().detach(), 1e-5)


def test_probabilities_of_unknown_logits_warn_once():
    model, images = Ends(lambda z: z.exp() / z.exp().sum(1, keepdim=True)), torch.randn(2, 3, 12, 12)
    with pytest.warns(UserWarning, match="returns probabilities.*`forward=`") as said:
        explain(model, images)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(model, images, target=lambda out, probe: out[:, 0])
        explain(Ends(nn.Identity()), images)


def test_probabilities_pass_through_or_are_computed():
    logits = torch.randn(5, 3)
    once = probabilities(logits)
    torch.testing.assert_close(once.double(), torch.exp(logits.double()) / torch.exp(logits.double()).sum(1, True))
    torch.testing.assert_close(probabilities(once), once)
    mixed = probabilities(torch.stack([torch.tensor([0.2, 0.8, 0.0]), torch.tensor([-1.0, 1.0, 1.0])]))
    torch.testing.assert_close(mixed.sum(1), torch.ones(2))
    torch.testing.assert_close(mixed[0], torch.tensor([0.2, 0.8, 0.0]))
