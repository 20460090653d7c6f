"""Embeddings: similarity of pairs, and the norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import (
    CosineSimilarity,
    EmbeddingNorm,
    NotExplainableError,
    Probe,
    explain,
)
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.targets.embeddings import MutualTarget
from tests.helpers.models import TinyResNet, assert_close, full_autograd, perturbed, plain_cnn, plain_gradcam
from tests.helpers.targets import REFERENCES, pair


def similarity(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()


def test_pair_maps_hold_the_other_image_constant():
    model, (images, others) = perturbed(TinyResNet()), torch.randn(2, 4, 3, 16, 16).unbind()
    runs = []
    handle = model.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    probe = Probe(images, references=others)
    plan = prepare(model, probe, target=CosineSimilarity(), layers="layer2")
    runs.clear()
    [found] = plan(model, probe, [CosineSimilarity()])
    handle.remove()
    assert runs == [8]  # one pass
    assert list(found.evidence) == ["layer2", "layer2/reference"]
    theirs, ours = model.double()(others.double()).detach(), model(images.double()).detach()
    model.float()
    for side, batch, partner in (("layer2", images, theirs), ("layer2/reference", others, ours)):
        expected = plain_gradcam(*full_autograd(model, "layer2", batch, lambda out, b=partner: similarity(out, b)))
        assert_close(found.evidence[side], expected)
        against = explain(model, Probe(batch, references=partner.float()), layers="layer2", target="cosine")
        assert_close(against.evidence["layer2"], found.evidence[side], 1e-4)
    assert_close(found.scores[""], similarity(ours, theirs), 1e-5)
    assert found.logits.shape == (4, 0)
    single = explain(model, probe[2:3], layers="layer2", target="cosine")
    assert_close(single.evidence["layer2/reference"], found.evidence["layer2/reference"][2:3], 1e-4)


def test_partner_embedding_is_outside_the_graph_in_any_grad_mode():
    embeddings = torch.randn(6, 4, requires_grad=True)
    rows = Probe(torch.zeros(6, 1, 2, 2), references=torch.zeros(6, 1, 2, 2))
    [found] = torch.autograd.grad(MutualTarget(CosineSimilarity())(embeddings, rows).sum(), [embeddings])
    constant = embeddings.detach()[[3, 4, 5, 0, 1, 2]]
    [expected] = torch.autograd.grad(similarity(embeddings, constant).sum(), [embeddings])
    assert_close(found, expected)


@pytest.mark.parametrize("method", ["scorecam", "hirescam", "occlusion"])
def test_methods_with_more_passes_explain_both_images(method):
    model, probe = pair()
    pairs = Probe(probe.images, references=probe.images.flip(0, 2))
    found = explain(model, pairs, layers="5", target="cosine", method=method)
    at = next(iter(found.evidence))
    with torch.no_grad():
        ours, theirs = model(pairs.images), model(pairs.references)
    for side, images, partner in ((at, pairs.images, theirs), (f"{at}/reference", pairs.references, ours)):
        alone = explain(model, Probe(images, references=partner), layers="5", target="cosine", method=method)
        assert_close(found.evidence[side], alone.evidence[at], 1e-4)


def test_pair_of_equal_images_has_almost_no_evidence():
    model, probe = pair()
    found = explain(model, Probe(probe.images, references=-probe.images), layers="5", target="cosine")
    same = explain(model, Probe(probe.images, references=probe.images), layers="5", target="cosine")
    assert float(same.scores[""].min()) > 0.9999  # the top of the cosine, where it is flat
    assert same.evidence["5"].abs().max() < 1e-4 * found.evidence["5"].abs().max()


def test_references_of_another_shape_raise():
    model, probe = pair()
    for references, message in [
        (None, r"Expected `references` of shape \(2, 5\).* got none"),
        (torch.zeros(3, 4), r"of shape \(2, 5\) in the probe.* got those of shape \(2, 4\)"),
        (torch.zeros(3, 3, 8, 8), r"as the images, but got those of shape \(2, 3, 8, 8\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            explain(model, Probe(probe.images, references=references), target="cosine")


class Normalizes(nn.Module):
    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body, self.by_hand = perturbed(plain_cnn()), by_hand

    def forward(self, images: Tensor) -> Tensor:
        found = self.body(images)
        return found / found.norm(dim=1, keepdim=True) if self.by_hand else F.normalize(found)


def test_norm_is_computed_before_normalization_or_raises():
    images = torch.randn(2, 3, 12, 12)
    expected = explain(Normalizes(False).body, images, layers="5", target=EmbeddingNorm())
    found = explain(Normalizes(False), images, layers="body.5", target=EmbeddingNorm())
    assert_close(found.evidence["body.5"], expected.evidence["5"], 1e-5)
    with pytest.raises(NotExplainableError, match=r"have length 1: .*Pass `forward=`"):
        explain(Normalizes(True), images, target="norm")
    mended = explain(Normalizes(True), images, layers="body.5", target="norm", forward=lambda m, p: m.body(p.images))
    assert_close(mended.evidence["body.5"], expected.evidence["5"], 1e-5)
    for by_hand in (False, True):  # of a cosine, normalization changes nothing
        probe = Probe(images, references=REFERENCES[:2])
        one = explain(Normalizes(by_hand), probe, layers="body.5", target="cosine")
        assert_close(
            one.evidence["body.5"],
            explain(Normalizes(by_hand).body, probe, layers="5", target="cosine").evidence["5"],
            1e-4,
        )
