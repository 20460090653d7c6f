"""Ensembles in one model are explained by the mean over their members; models that need certain batch sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam import NotExplainableError, explain
from tests.helpers.models import assert_close

IMAGES = torch.rand(8, 3, 10, 10, generator=torch.Generator().manual_seed(1))


class Packed(nn.Module):
    """A packed ensemble: one body, several heads, and all rows of one member or of one image first."""

    def __init__(self, count, is_member_first):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(6, 5) for _ in range(count))
        self.is_member_first = is_member_first

    def forward(self, images):
        members = self.members(images)
        return (members if self.is_member_first else members.transpose(0, 1)).flatten(0, 1)

    def members(self, images):
        features = self.body(images).mean((2, 3))
        return torch.stack([head(features) for head in self.heads])


@pytest.mark.parametrize("is_member_first", [True, False])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_ensemble_is_explained_by_mean_of_members(is_member_first, count, number):
    model, images = Packed(count, is_member_first).eval(), IMAGES[:number]
    with pytest.warns(UserWarning, match=f"{count} rows of logits per image; their mean is explained"):
        explanation = explain(model, images)
    mean = explain(model, images, forward=lambda model, probe: model.members(probe.images).mean(0))
    assert_close(explanation.evidence["body"], mean.evidence["body"], 1e-6)
    assert_close(explanation.logits, model.members(images).mean(0).detach(), 1e-6)
    assert torch.equal(explanation.classes, mean.classes)


def test_target_of_all_rows_is_left_alone():
    model = Packed(4, is_member_first=True).eval()
    explanation = explain(model, IMAGES[:3], target=lambda output, probe: output[: len(probe), 1])
    first = explain(model, IMAGES[:3], target=1, forward=lambda model, probe: model.members(probe.images)[0])
    assert_close(explanation.evidence["body"], first.evidence["body"], 1e-6)


class Repeats(Packed):
    """A model that repeats its images before all layers."""

    def forward(self, images):
        return self.heads[0](self.body(images.repeat(4, 1, 1, 1)).mean((2, 3)))


class Mixes(Packed):
    """A model whose rows belong to all images."""

    def forward(self, images):
        logits = self.members(images).flatten(0, 1)
        return logits + logits.mean(0)


@pytest.mark.parametrize(("model", "message"), [
    (Repeats(4, True), "repeats each image 4 times before its layers"),
    (Mixes(4, True), "one row of logits per image, or the same number for each, but got 8 for 2 images"),
])  # fmt: skip
def test_rows_that_are_not_members_are_refused(model, message):
    with pytest.raises(NotExplainableError, match=message):
        explain(model.eval(), IMAGES[:3])


class Queue(nn.Module):
    """A model with a queue of embeddings, as MoCo's, which takes batches that divide its length."""

    def __init__(self, only=0):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Linear(6, 5)
        self.register_buffer("queue", torch.zeros(8, 5))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.only = only

    def forward(self, images):
        logits = self.head(self.body(images).mean((2, 3)))
        count = self.only or len(logits)
        if len(self.queue) % count:
            raise ValueError("the queue's length is no multiple")
        self.queue[self.position : self.position + count] = logits.detach()
        self.position = (self.position + count) % len(self.queue)
        return logits


@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_model_with_queue_is_explained_and_queue_is_kept(number):
    model = Queue().eval()
    explanation = explain(model, IMAGES[:number])
    assert not model.queue.any()
    assert model.position == 0
    plain = nn.Sequential(model.body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head)
    assert_close(explanation.evidence["body"], explain(plain, IMAGES[:number]).evidence["0"], 1e-6)


def test_model_for_one_batch_size_is_traced_on_all_images():
    explanation = explain(Queue(only=4).eval(), IMAGES[:4])
    assert_close(explanation.evidence["body"], explain(Queue().eval(), IMAGES[:4]).evidence["body"], 1e-6)


def test_batch_size_that_model_refuses_is_named_as_reason():
    with pytest.raises(NotExplainableError, match=r"no multiple.*batches of certain sizes, as with a queue"):
        explain(Queue().eval(), IMAGES[:3])
    with pytest.raises(NotExplainableError, match=r"Queue failed on images of shape \(2, 3, 10, 10\)"):
        explain(Queue(only=4).eval(), IMAGES[:3])
