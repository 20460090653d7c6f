"""Methods of passes: where their evidence lies, and what a pass offers them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import plain_cnn
from torch import nn

from lightning_gradcam import Baseline, NotExplainableError, Probe, explain
from lightning_gradcam.methods import METHODS
from lightning_gradcam.trace import ATTENTION, PIXELS


def brightness(passes):
    """Evidence at the pixels, which needs no layer."""
    return {PIXELS: passes.probe.images.mean(1)}


brightness.place = PIXELS


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_evidence_at_the_pixels_needs_no_layer():
    images = torch.randn(2, 3, 12, 12)
    found = explain(mlp(), images, method=brightness)
    torch.testing.assert_close(found.evidence[PIXELS], images.mean(1))
    assert found.layers[PIXELS].reason == "the images themselves"
    with pytest.raises(NotExplainableError, match="No layer to explain"):
        explain(mlp(), images)


def test_both_kinds_stand_side_by_side():
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    found = explain(model, images, layers="5", method=["gradcam", brightness], target=0)
    assert list(found.evidence) == ["5/gradcam", f"{PIXELS}/brightness"]
    torch.testing.assert_close(found.evidence["5/gradcam"], explain(model, images, layers="5", target=0).evidence["5"])


def test_a_baseline_keeps_evidence_at_the_pixels(monkeypatch):
    monkeypatch.setitem(METHODS, "brightness", brightness)
    model, images = plain_cnn().eval(), torch.randn(70, 3, 12, 12)
    for method in ("brightness", ["gradcam", "brightness"]):
        assert Baseline.record(model, Probe(images), method=method).compare(model, profile="same-weights").passed


def test_what_is_wrong_is_said():
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)

    def lost(passes):
        return {"nowhere": passes.probe.images.mean(1)}

    def rolled(passes):
        return {ATTENTION: passes.probe.images.mean(1)}

    with pytest.raises(ValueError, match=r"evidence for '5' from method 'lost', but got it for 'nowhere'.*`place`"):
        explain(model, images, layers="5", method=lost)
    rolled.place = ATTENTION
    with pytest.raises(NotExplainableError, match="Expected a model of tokens"):
        explain(model, images, method=rolled)
    rolled.place = "here"
    with pytest.raises(ValueError, match="a method's `place` to be 'input pixels' or 'all attention'"):
        explain(model, images, method=rolled)
    with pytest.raises(ValueError, match="methods that are read at layers beside `fuse='max'`"):
        explain(model, images, layers="stages", fuse="max", method=["gradcam", brightness])


@pytest.mark.parametrize("target", ["predicted", [2, 0, 1]])
def test_scores_of_other_images_stay_with_the_class_of_their_row(target):
    model, images, rows = plain_cnn().eval(), torch.randn(3, 3, 12, 12), [2, 0, 0, 1]
    scores = []

    def method(passes):
        other = passes.probe[rows]
        dark = replace(other, images=other.images * 0.01)
        scores.append((passes.scores(dark, rows), passes.scores(replace(passes.probe, images=images * 0.01))))
        return {key: a.sum(1) for key, a in passes.activations.items()}

    found = explain(model, images, method=method, target=target)
    logits = model(images * 0.01).detach()
    torch.testing.assert_close(scores[0][0], logits[rows].gather(1, found.classes[rows][:, None])[:, 0])
    torch.testing.assert_close(scores[0][1], logits.gather(1, found.classes[:, None])[:, 0])
