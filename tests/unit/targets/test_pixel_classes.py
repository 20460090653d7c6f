"""The predicted class of each pixel is searched once per output."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from lightning_gradcam import Probe, explain
from lightning_gradcam.targets import pixel_classes
from lightning_gradcam.targets.pixel_classes import count_pixels, predict_pixels


def count_searches(monkeypatch):
    searches, search = [], pixel_classes._search_pixels

    def counted(scores):
        searches.append(tuple(scores.shape))
        return search(scores)

    monkeypatch.setattr(pixel_classes, "_search_pixels", counted)
    return searches


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (1, 2, 9, 1), (3, 4, 2, 3, 4)])
def test_prediction_equals_argmax_and_its_counts(shape):
    scores = torch.randint(0, 3, shape).float()  # with ties
    predicted = predict_pixels(scores)
    assert torch.equal(predicted.masks, scores.argmax(1))
    counts = [[int((mask == k).sum()) for k in range(shape[1])] for mask in scores.argmax(1)]
    assert predicted.areas.tolist() == counts
    assert torch.equal(count_pixels(predicted.masks, shape[1]), predicted.areas)


def test_same_scores_are_searched_once_until_they_change(monkeypatch):
    searches = count_searches(monkeypatch)
    scores, other = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4)
    assert predict_pixels(scores) is predict_pixels(scores)
    assert not predict_pixels(scores).areas.requires_grad
    predict_pixels(other)
    assert len(searches) == 2
    other[:, 2] += 9
    assert predict_pixels(other).masks.eq(2).all()
    assert len(searches) == 3


def test_prediction_is_freed_with_scores():
    scores = torch.rand(1, 2, 3, 3)
    before = len(pixel_classes._PREDICTED)
    predict_pixels(scores)
    assert len(pixel_classes._PREDICTED) == before + 1
    del scores
    gc.collect()
    assert len(pixel_classes._PREDICTED) == before


def test_changed_inference_tensor_is_searched_again():
    with torch.inference_mode():
        scores = torch.zeros(1, 2, 3, 3)
        assert predict_pixels(scores).masks.eq(0).all()
        scores[:, 1] = 1
        assert predict_pixels(scores).masks.eq(1).all()


@pytest.mark.parametrize("target", ["predicted", "label"])
def test_explanation_searches_once_per_forward_pass(monkeypatch, target):
    searches, passes = count_searches(monkeypatch), []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    model.register_forward_hook(lambda *_: passes.append(1))
    masks = torch.randint(0, 5, (2, 8, 8))
    explain(model, Probe(torch.rand(2, 3, 8, 8), labels=masks), target=target, output="segmentation")
    assert 0 < len(searches) <= len(passes)
