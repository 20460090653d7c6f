"""Composite targets: best classes, margins and labels, each explained separately."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given as for_all, strategies as st

from lightning_gradcam import (
    EachLabel,
    Margin,
    Probe,
    TopK,
    explain,
)
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.targets import TARGETS, freeze_target
from tests.helpers.models import TinyResNet, assert_close, examples, full_autograd, perturbed, plain_gradcam
from tests.helpers.targets import SEVERAL, pair


def test_topk_takes_one_forward_and_k_backward_passes(monkeypatch):
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
def test_margin_and_topk_equal_those_of_the_logits(count, rows, seed):
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


def test_frozen_target_keeps_the_explained_classes():
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


def test_each_label_is_explained_and_a_missing_one_is_no_failure():
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


def test_methods_with_more_passes_explain_each_rank():
    model, probe = pair()
    found = explain(model, probe, layers="5", target=TopK(2), method="scorecam")
    for rank in ("top 1", "top 2"):
        alone = explain(model, probe, layers="5", target=found.explained[rank], method="scorecam")
        assert_close(found.evidence[f"5/{rank}"], alone.evidence["5"], 1e-5)


def test_explanations_of_several_scores_are_split_and_joined():
    model, probe = pair(SEVERAL)
    found = explain(model, probe, layers="5", target="label")
    halves = [found.map(lambda rows, at=at: rows[at]) for at in (slice(1), slice(1, None))]
    joined = Explanation.cat(halves)
    for name in ("evidence", "map_status", "explained", "scores"):
        whole = getattr(found, name)
        assert all(torch.equal(getattr(joined, name)[end], tensor) for end, tensor in whole.items())
        assert len(whole) == 2
    assert found.find_score_name("5/label 2") == "label 2"
