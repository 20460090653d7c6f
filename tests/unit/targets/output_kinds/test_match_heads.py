"""Several heads and several labels: those that belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_gradcam import Probe, explain
from lightning_gradcam.targets.output_kinds import OutputClues, find_output_kind
from lightning_gradcam.targets.output_kinds.label_clues import LabelClues
from lightning_gradcam.targets.output_kinds.match_heads import match_heads
from lightning_gradcam.targets.output_kinds.parts import Vector


def labels(**highest):
    return OutputClues([LabelClues(name, "classes", (), 0, high) for name, high in highest.items()])


COLOR, KIND, PLAIN = Vector("color", 3), Vector("kind", 5), Vector("", 5)
MADE = Vector("", 5, maker="heads.kind_head", siblings=("color_head",))
CASES = {
    "by name": ([COLOR, KIND], labels(color=2, kind=4), "color", "color"),
    "by name, whatever the order": ([KIND, COLOR], labels(color=2, kind=4), "kind", "kind"),
    "the only labels": ([COLOR, KIND], labels(kind=2), "kind", ""),
    "by range": ([Vector("0", 3), Vector("1", 5)], labels(y=4), "1", ""),
    "both fit": ([Vector("0", 3), Vector("1", 5)], labels(y=2), "0", ""),
    "as many": ([PLAIN], labels(color=2, kind=4), "", "kind"),
    "first of equals": ([PLAIN], labels(a=4, b=4), "", "a"),
    "first that fits": ([PLAIN], labels(index=99, b=3), "", "b"),
    "none fits": ([PLAIN], labels(index=99, b=8), "", ""),
    "with other words": ([Vector("kind_logits", 5)], labels(color=2, kind_label=3), "kind_logits", "kind_label"),
    "by module": ([MADE], labels(color=4, kind=3), "", "kind"),
    "of another module": ([MADE], labels(color=2), "", None),
    "not the embedding": ([Vector("0", 64, "all rows have length 1"), Vector("1", 5)], labels(y=4), "1", ""),
    "not the features": ([Vector("0", 64), Vector("1", 5)], OutputClues(model_classes=5), "1", ""),
    "as many as in the data": (
        [Vector("0", 64), Vector("1", 5)], replace(labels(y=2), num_classes=5), "1", "",
    ),
    "logits come first": ([Vector("logits", 5), KIND], labels(kind=4), "logits", None),
    "no labels": ([COLOR, KIND], labels(), "color", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_heads_and_labels_are_matched(name):
    vectors, clues, head, label_name = CASES[name]
    vector, matched = match_heads(vectors, clues)
    assert (vector.name, matched) == (head, label_name)


class Heads(nn.Module):
    """Two heads, of which the output holds both."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.heads = nn.ModuleDict({"color": nn.Linear(6, 3), "kind": nn.Linear(6, 5)})

    def forward(self, images):
        features = self.body(images).mean((2, 3))
        return {name: head(features) for name, head in self.heads.items()}


@pytest.mark.parametrize("flips", [False, True])
def test_the_head_with_the_labels_is_explained(flips):
    model, probe = Heads(), Probe(torch.randn(5, 3, 8, 8), labels=torch.arange(5))  # only the second head has class 4
    found = explain(model, probe, target="label", flips=flips)
    of = explain(model, probe, target="label", flips=flips, forward=lambda m, p: m(p.images)["kind"])
    assert torch.equal(found.evidence["body"], of.evidence["body"])
    assert torch.equal(found.logits, model(probe.images)["kind"])
    top = explain(model, probe, target="topk")
    assert torch.equal(top.explained["top 1"], found.logits.argmax(1))


def test_the_kind_says_which_head_it_is_of():
    probe = Probe(torch.rand(2, 3, 8, 8))
    kind = find_output_kind({"color": torch.rand(2, 3), "kind": torch.rand(2, 5)}, probe)
    assert (kind.num_classes, kind.head) == (3, "color")
    assert find_output_kind({"color": torch.rand(2, 3)}, probe).head == ""
