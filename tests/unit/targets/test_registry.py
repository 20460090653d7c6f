"""Registry: every target against an ordinary backward pass in float64, in batches and one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_gradcam import (
    EachLabel,
    Margin,
    TopK,
    explain,
)
from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.targets import TARGETS, coerce_target, freeze_target, split_target, target_name
from tests.helpers.models import assert_close, full_autograd, plain_gradcam
from tests.helpers.targets import LABELS, REFERENCES, SEVERAL, key, pair


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


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_equals_autograd_in_a_batch_and_singly(name):
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
def test_every_target_is_the_same_in_chunks_fused_and_mirrored(name):
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


def test_invalid_targets_raise_with_a_reason():
    for make, error, message in [
        (lambda: TopK(0), ValueError, "at least 1 class, but got 0"),
        (lambda: EachLabel(-1), ValueError, "at least 1 class, but got -1"),
        (lambda: Margin("best"), ValueError, "'predicted', 'label' or a class, but got 'best'"),
        (lambda: Margin(1.5), TypeError, "integers, but got 1.5"),
        (lambda: coerce_target("top"), ValueError, "Did you mean 'topk'"),
    ]:
        with pytest.raises(error, match=message):
            make()


def test_every_target_has_a_name_in_figures():
    names = {target_name(target) for target in TARGETS.values()}
    assert len(names) == len(TARGETS)
    assert target_name(Margin(2)) == "class 2 against the best other one"
