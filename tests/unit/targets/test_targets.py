"""What is explained: every target against an ordinary backward pass in float64, in batches and one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given as for_all, strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import (
    CosineSimilarity,
    EachLabel,
    EmbeddingNorm,
    Margin,
    NotExplainableError,
    Probe,
    TopK,
    explain,
)
from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.targets import TARGETS, coerce_target, freeze_target, split_target, target_name
from lightning_gradcam.targets.embeddings import MutualTarget
from tests.helpers.models import TinyResNet, assert_close, examples, full_autograd, perturbed, plain_cnn, plain_gradcam

LABELS = torch.tensor([4, 0, 2])
SEVERAL = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
REFERENCES = torch.tensor([[1.0, 2, 0, -1, 0], [0, 0, 3, 0, 1], [1, 1, 1, 1, 1]])


def pair(labels: Tensor | None = None, references: Tensor | None = None) -> tuple[nn.Module, Probe]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(3, 3, 12, 12, generator=generator)
    return perturbed(plain_cnn()), Probe(images, labels=labels, references=references)


def ranked(n: int) -> Callable[[Tensor], Tensor]:
    return lambda out: out.sort(dim=1, descending=True).values[:, n]


def cosine(out: Tensor) -> Tensor:
    a, b = out, REFERENCES.to(out)
    return (a * b).sum(1) / ((a * a).sum(1).sqrt() * (b * b).sum(1).sqrt())


PLAIN: dict[str, tuple[Tensor | None, dict[str, Callable[[Tensor], Tensor]]]] = {
    "predicted": (None, {"": lambda out: out.max(1).values}),
    "label": (LABELS, {"": lambda out: out[range(3), LABELS]}),
    "positives": (SEVERAL, {"": lambda out: (out * SEVERAL).sum(1)}),
    "topk": (None, {f"top {n + 1}": ranked(n) for n in range(3)}),
    "margin": (None, {"": lambda out: ranked(0)(out) - ranked(1)(out)}),
    "cosine": (None, {"": cosine}),
    "norm": (None, {"": lambda out: (out * out).sum(1).sqrt()}),
}
"""Labels, and scores by the end of their keys: a target is tested by being entered here."""


def key(layer: str, end: str) -> str:
    return f"{layer}/{end}" if end else layer


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_the_gradient_of_its_score_in_a_batch_and_alone(name):
    labels, scores = PLAIN[name]
    model, probe = pair(labels, REFERENCES)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    found = explain(model, probe, layers=["5", "2"], target=name)
    assert list(found.evidence) == [key(layer, end) for layer in ("5", "2") for end in scores]
    alone = [explain(model, probe[i : i + 1], layers="5", target=name) for i in range(3)]
    for end, score in scores.items():
        for layer in ("5", "2"):
            expected = plain_gradcam(*full_autograd(model, layer, probe.images, score))
            assert_close(found.evidence[key(layer, end)], expected)
        joined = torch.cat([each.evidence[key("5", end)] for each in alone])
        assert_close(joined, found.evidence[key("5", end)], 1e-5)
        assert_close(found.scores[end], score(model(probe.images).detach()), 1e-5)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert found.logits.shape == (3, 0 if name in ("cosine", "norm") else 5)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_the_same_in_portions_with_several_methods_fused_and_mirrored(name):
    model, probe = pair(PLAIN[name][0], REFERENCES)
    target = TARGETS[name]
    whole = {"layers": ["2", "5"], "method": ["gradcam", "layercam"], "fuse": "max", "flips": True}
    plan = prepare(model, probe, target=target, **whole)
    [found] = plan(model, probe, [target])
    [cut] = ShardedExplainer(plan, chunks=Chunks(2))(model, probe, [target])
    assert list(found.evidence) == list(cut.evidence)
    assert len(found.evidence) == 3 * 2 * len(split_target(target))
    for each in found.evidence:
        assert_close(cut.evidence[each], found.evidence[each], 1e-5)
        assert torch.equal(cut.map_status[each], found.map_status[each])
    mirrored = explain(model, probe.mirror(), layers=["2", "5"], target=freeze_target(target, found.explained))
    straight = explain(model, probe, layers=["2", "5"], target=name)
    for end in split_target(target):
        both = straight.evidence[key("2", end)] + mirrored.evidence[key("2", end)].flip(-1)
        assert_close(found.evidence[key("2/gradcam", end)], both / 2, 1e-5)


def test_the_best_classes_take_one_forward_pass_and_a_backward_pass_each(monkeypatch):
    model, probe = pair()
    plan = prepare(model, probe, target=TopK(4), layers="5")
    forward, backward = [], []
    handle = model.register_forward_hook(lambda *_: forward.append(1))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: backward.append(1) or grad(*args, **kwargs))
    [found] = plan(model, probe, [TopK(4)])
    handle.remove()
    assert (len(forward), len(backward)) == (1, 4)
    order = model(probe.images).argsort(1, descending=True)
    assert torch.equal(torch.stack([found.explained[f"top {n + 1}"] for n in range(4)], 1), order[:, :4])
    assert torch.equal(found.classes, order[:, 0])
    assert torch.equal(explain(model, probe, layers="5").evidence["5"], found.evidence["5/top 1"])
    with pytest.raises(ValueError, match="at most 5 classes"):
        explain(model, probe, target=TopK(6))


@for_all(st.integers(2, 6), st.integers(1, 5), st.integers(0, 9))
@examples(25)
def test_a_margin_and_the_ranks_are_those_of_the_logits(count, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-3, 4, (rows, count), generator=generator).float()  # with equals among them
    probe = Probe(torch.zeros(rows, 1, 2, 2), labels=torch.randint(0, count, (rows,), generator=generator))
    values = logits.sort(dim=1, descending=True).values
    assert torch.equal(TopK(count)(logits, probe), values)
    assert torch.equal(Margin()(logits, probe), values[:, 0] - values[:, 1])
    for i, label in enumerate(probe.labels.tolist()):
        others = torch.cat([logits[i, :label], logits[i, label + 1 :]])
        assert Margin("label")(logits, probe)[i] == logits[i, label] - others.max()
        assert Margin(label)(logits, probe)[i] == logits[i, label] - others.max()
    ranks = [TopK(count).parts[f"top {n + 1}"].select_classes(logits, probe) for n in range(count)]
    assert torch.equal(torch.stack(ranks, 1).sort(1).values, torch.arange(count).expand(rows, -1))
    assert torch.equal(ranks[0], logits.argmax(1))


def test_what_was_chosen_is_held():
    torch.manual_seed(0)
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    model, probe = perturbed(TinyResNet()), Probe(images * torch.arange(1, 7)[:, None, None, None])
    other = Probe(-probe.images)
    for target in (TopK(2), Margin(), TARGETS["predicted"]):
        found = explain(model, probe, layers="layer2", target=target)
        again = explain(model, other, layers="layer2", target=freeze_target(target, found.explained))
        assert list(again.evidence) == list(found.evidence)
        assert all(torch.equal(again.explained[end], chosen) for end, chosen in found.explained.items())
        free = explain(model, other, layers="layer2", target=target)
        assert not all(torch.equal(free.explained[end], chosen) for end, chosen in found.explained.items())


def test_each_label_of_an_image_is_explained_and_none_is_no_flaw():
    model, probe = pair(SEVERAL)
    found = explain(model, probe, layers="5", target="label")
    assert list(found.evidence) == ["5/label 1", "5/label 2"]  # as many as the image with the most
    assert found.explained["label 1"].tolist() == [1, 0, -1]
    assert found.explained["label 2"].tolist() == [3, -1, -1]
    assert found.degenerate["5/label 2"][1:] == ("no label", "no label")
    of = [plain_gradcam(*full_autograd(model, "5", probe.images, lambda out, c=c: out[:, c])) for c in (1, 0, 3)]
    assert_close(found.evidence["5/label 1"][0], of[0][0])
    assert_close(found.evidence["5/label 1"][1], of[1][1])
    assert_close(found.evidence["5/label 2"][0], of[2][0])
    assert float(found.evidence["5/label 1"][2].abs().max()) == 0
    assert list(explain(model, probe, layers="5", target=EachLabel(1)).evidence) == ["5/label 1"]
    with pytest.raises(ValueError, match=r"shape \(N, 5\), a 0 or 1 for each .* got \(3, 4\)"):
        explain(model, Probe(probe.images, labels=SEVERAL[:, :4]), target="positives")


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
def test_the_score_before_the_last_softmax_is_explained(end, grad):
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
def test_of_one_probability_the_predicted_side_is_explained(end):
    model, plain = Ends(end, classes=1), Ends(nn.Identity(), classes=1)
    images = 3 * torch.randn(8, 3, 12, 12)
    found, expected = explain(model, images, layers="body.5"), explain(plain, images, layers="body.5")
    assert_close(found.evidence["body.5"], expected.evidence["body.5"], 1e-5)
    logit = plain(images)[:, 0]
    assert torch.equal(found.classes, (logit > 0).long())
    side = torch.where(logit > 0, 0.5, -0.5).detach()
    of = plain_gradcam(*full_autograd(plain, "body.5", images, lambda out: side.to(out) * out[:, 0]))
    assert_close(found.evidence["body.5"], of)
    assert_close(found.logits.softmax(1)[:, 1], logit.sigmoid().detach(), 1e-5)


def test_of_probabilities_of_unknown_make_one_warning_says_so():
    model, images = Ends(lambda z: z.exp() / z.exp().sum(1, keepdim=True)), torch.randn(2, 3, 12, 12)
    with pytest.warns(UserWarning, match="returns probabilities.*`forward=`") as said:
        explain(model, images)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(model, images, target=lambda out, probe: out[:, 0])
        explain(Ends(nn.Identity()), images)


def test_both_sides_of_a_pair_have_the_map_of_the_other_side_held():
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


def test_the_partner_of_a_pair_is_no_part_of_the_graph_whatever_the_grad_mode():
    embeddings = torch.randn(6, 4, requires_grad=True)
    rows = Probe(torch.zeros(6, 1, 2, 2), references=torch.zeros(6, 1, 2, 2))
    [found] = torch.autograd.grad(MutualTarget(CosineSimilarity())(embeddings, rows).sum(), [embeddings])
    constant = embeddings.detach()[[3, 4, 5, 0, 1, 2]]
    [expected] = torch.autograd.grad(similarity(embeddings, constant).sum(), [embeddings])
    assert_close(found, expected)


@pytest.mark.parametrize("method", ["scorecam", "hirescam", "occlusion"])
def test_methods_of_more_passes_explain_both_sides(method):
    model, probe = pair()
    pairs = Probe(probe.images, references=probe.images.flip(0, 2))
    found = explain(model, pairs, layers="5", target="cosine", method=method)
    at = next(iter(found.evidence))
    with torch.no_grad():
        ours, theirs = model(pairs.images), model(pairs.references)
    for side, images, partner in ((at, pairs.images, theirs), (f"{at}/reference", pairs.references, ours)):
        alone = explain(model, Probe(images, references=partner), layers="5", target="cosine", method=method)
        assert_close(found.evidence[side], alone.evidence[at], 1e-4)


def test_methods_of_more_passes_explain_each_rank():
    model, probe = pair()
    found = explain(model, probe, layers="5", target=TopK(2), method="scorecam")
    for rank in ("top 1", "top 2"):
        alone = explain(model, probe, layers="5", target=found.explained[rank], method="scorecam")
        assert_close(found.evidence[f"5/{rank}"], alone.evidence["5"], 1e-5)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()


def test_a_pair_of_the_same_image_has_no_evidence_to_speak_of():
    model, probe = pair()
    found = explain(model, Probe(probe.images, references=-probe.images), layers="5", target="cosine")
    same = explain(model, Probe(probe.images, references=probe.images), layers="5", target="cosine")
    assert float(same.scores[""].min()) > 0.9999  # the top of the cosine, where it is flat
    assert same.evidence["5"].abs().max() < 1e-4 * found.evidence["5"].abs().max()


def test_pairs_that_do_not_fit_are_named():
    model, probe = pair()
    for references, message in [
        (None, r"Expected `references` of shape \(2, 5\).* got none"),
        (torch.zeros(3, 4), r"of shape \(2, 5\) in the probe.* got those of shape \(2, 4\)"),
        (torch.zeros(3, 3, 8, 8), r"as the images, but got those of shape \(2, 3, 8, 8\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            explain(model, Probe(probe.images, references=references), target="cosine")


class Normalises(nn.Module):
    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body, self.by_hand = perturbed(plain_cnn()), by_hand

    def forward(self, images: Tensor) -> Tensor:
        found = self.body(images)
        return found / found.norm(dim=1, keepdim=True) if self.by_hand else F.normalize(found)


def test_the_norm_is_that_before_normalisation_or_the_remedy_is_named():
    images = torch.randn(2, 3, 12, 12)
    expected = explain(Normalises(False).body, images, layers="5", target=EmbeddingNorm())
    found = explain(Normalises(False), images, layers="body.5", target=EmbeddingNorm())
    assert_close(found.evidence["body.5"], expected.evidence["5"], 1e-5)
    with pytest.raises(NotExplainableError, match=r"have length 1: .*Pass `forward=`"):
        explain(Normalises(True), images, target="norm")
    mended = explain(Normalises(True), images, layers="body.5", target="norm", forward=lambda m, p: m.body(p.images))
    assert_close(mended.evidence["body.5"], expected.evidence["5"], 1e-5)
    for by_hand in (False, True):  # of a cosine, normalisation changes nothing
        probe = Probe(images, references=REFERENCES[:2])
        one = explain(Normalises(by_hand), probe, layers="body.5", target="cosine")
        assert_close(
            one.evidence["body.5"],
            explain(Normalises(by_hand).body, probe, layers="5", target="cosine").evidence["5"],
            1e-4,
        )


def test_what_is_wrong_with_a_target_is_said():
    for make, error, message in [
        (lambda: TopK(0), ValueError, "at least 1 class, but got 0"),
        (lambda: EachLabel(-1), ValueError, "at least 1 class, but got -1"),
        (lambda: Margin("best"), ValueError, "'predicted', 'label' or a class, but got 'best'"),
        (lambda: Margin(1.5), TypeError, "integers, but got 1.5"),
        (lambda: coerce_target("top"), ValueError, "Did you mean 'topk'"),
    ]:
        with pytest.raises(error, match=message):
            make()


def test_pictures_name_every_target():
    names = {target_name(target) for target in TARGETS.values()}
    assert len(names) == len(TARGETS)
    assert target_name(Margin(2)) == "class 2 against the best other one"


def test_explanations_with_parts_are_cut_and_joined():
    model, probe = pair(SEVERAL)
    found = explain(model, probe, layers="5", target="label")
    halves = [found.map(lambda rows, at=at: rows[at]) for at in (slice(1), slice(1, None))]
    joined = Explanation.cat(halves)
    for name in ("evidence", "map_status", "explained", "scores"):
        whole = getattr(found, name)
        assert all(torch.equal(getattr(joined, name)[end], tensor) for end, tensor in whole.items())
        assert len(whole) == 2
    assert found.find_score_name("5/label 2") == "label 2"
