"""Application of methods: where evidence is located, its shape, and further passes."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_gradcam import Baseline, NotExplainableError, Probe, explain
from lightning_gradcam.capture.layer import ATTENTION, PIXELS
from lightning_gradcam.methods import METHODS
from lightning_gradcam.methods.apply import apply_method
from tests.helpers.models import plain_cnn


def brightness(passes):
    """Return evidence at the pixels, which needs no layer."""
    return {PIXELS: passes.probe.images.mean(1)}


brightness.location = PIXELS


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_evidence_at_pixels_needs_no_layer():
    images = torch.randn(2, 3, 12, 12)
    explanation = explain(mlp(), images, method=brightness)
    torch.testing.assert_close(explanation.evidence[PIXELS], images.mean(1))
    assert explanation.layers[PIXELS].reason == "the images themselves"
    with pytest.raises(NotExplainableError, match="No layer to explain"):
        explain(mlp(), images)


def test_layer_and_pixel_methods_combine():
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    explanation = explain(model, images, layers="5", method=["gradcam", brightness], target=0)
    assert list(explanation.evidence) == ["5/gradcam", f"{PIXELS}/brightness"]
    torch.testing.assert_close(
        explanation.evidence["5/gradcam"], explain(model, images, layers="5", target=0).evidence["5"]
    )


def test_baseline_keeps_evidence_at_pixels(monkeypatch):
    monkeypatch.setitem(METHODS, "brightness", brightness)
    model, images = plain_cnn().eval(), torch.randn(70, 3, 12, 12)
    for method in ("brightness", ["gradcam", "brightness"]):
        assert Baseline.record(model, Probe(images), method=method).compare(model, profile="same-weights").passed


def test_wrong_location_raises():
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)

    def misplaced(passes):
        return {"nowhere": passes.probe.images.mean(1)}

    def attend(passes):
        return {ATTENTION: passes.probe.images.mean(1)}

    with pytest.raises(
        ValueError, match=r"evidence for '5' from method 'misplaced', but got evidence for 'nowhere'.*`location`"
    ):
        explain(model, images, layers="5", method=misplaced)
    attend.location = ATTENTION
    with pytest.raises(NotExplainableError, match="Expected a model whose layers return tokens"):
        explain(model, images, method=attend)
    attend.location = "here"
    with pytest.raises(ValueError, match="a method's `location` to be 'input pixels' or 'all attention'"):
        explain(model, images, method=attend)
    with pytest.raises(ValueError, match="Expected only methods that explain layers with `fuse='max'`"):
        explain(model, images, layers="stages", fuse="max", method=["gradcam", brightness])


def test_wrong_evidence_shape_raises():
    def channels(activations, gradients):
        return activations.mean((2, 3))

    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    with pytest.raises(ValueError, match=r"Expected evidence of shape \(2, \*grid\) .*'channels', but got \(2, 8\)"):
        explain(model, images, method=channels)


@pytest.mark.parametrize("target", ["predicted", [2, 0, 1]])
def test_scores_of_other_images_keep_their_class(target):
    model, images, rows = plain_cnn().eval(), torch.randn(3, 3, 12, 12), [2, 0, 0, 1]
    scores = []

    def method(passes):
        other = passes.probe[rows]
        dark = replace(other, images=other.images * 0.01)
        scores.append((passes.scores(dark, rows), passes.scores(replace(passes.probe, images=images * 0.01))))
        return {key: a.sum(1) for key, a in passes.activations.items()}

    explanation = explain(model, images, method=method, target=target)
    logits = model(images * 0.01).detach()
    torch.testing.assert_close(scores[0][0], logits[rows].gather(1, explanation.classes[rows][:, None])[:, 0])
    torch.testing.assert_close(scores[0][1], logits.gather(1, explanation.classes[:, None])[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_further_passes_use_the_autocast_of_the_caller(dtype):
    """Methods run outside the caller's autocast, but the passes that they start run inside it."""
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    dtypes = []

    def forward(model, probe):
        dtypes.append(model(probe.images).dtype)
        return model(probe.images)

    def rerun(passes):
        assert not torch.is_autocast_enabled("cpu")
        passes.scores(passes.probe)
        passes.scores_from_layer("5", 0)(1, lambda output: output)
        return {"5": passes.activations["5"].sum(1)}

    with torch.autocast("cpu", dtype=dtype):
        explain(model, images, layers="5", method=rerun, target=1, forward=forward)
    assert set(dtypes) == {dtype}


def test_eigencam_needs_no_gradients():
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        model[-1].weight.zero_()
    explanation = explain(model, images, layers="5", method=["gradcam", "eigencam"], target=0)
    assert explanation.degenerate["5/gradcam"] == ("no gradient", "no gradient")
    assert explanation.degenerate["5/eigencam"] == (None, None)
    passes = namedtuple("passes", "layers activations probe")  # without gradients
    assert apply_method(METHODS["eigencam"], passes({"5": None}, {"5": torch.rand(2, 3, 4, 4)}, Probe(images)))
