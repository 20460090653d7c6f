"""Methods of passes: where their evidence lies, and what a pass offers them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_gradcam import Baseline, NotExplainableError, Probe, ScoreCAM, explain
from lightning_gradcam.capture.layer import ATTENTION, PIXELS
from lightning_gradcam.methods import EQUATIONS, METHODS, get_location
from tests.helpers.model_state import everything
from tests.helpers.models import TinyViT, assert_close, perturbed, plain_cnn
from tests.helpers.pass_replicas import PASS_REPLICAS


def brightness(passes):
    """Evidence at the pixels, which needs no layer."""
    return {PIXELS: passes.probe.images.mean(1)}


brightness.location = PIXELS


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

    with pytest.raises(
        ValueError, match=r"evidence for '5' from method 'lost', but got evidence for 'nowhere'.*`location`"
    ):
        explain(model, images, layers="5", method=lost)
    rolled.location = ATTENTION
    with pytest.raises(NotExplainableError, match="Expected a model of tokens"):
        explain(model, images, method=rolled)
    rolled.location = "here"
    with pytest.raises(ValueError, match="a method's `location` to be 'input pixels' or 'all attention'"):
        explain(model, images, method=rolled)
    with pytest.raises(ValueError, match="Expected only methods that explain layers with `fuse='max'`"):
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


PASSES = [name for name in METHODS if name not in EQUATIONS and METHODS[name].requires is None]
"""The names of the methods of passes; `test_pixel_methods` holds those that need another package."""

ALONE = {name: (1e-5 if get_location(METHODS[name]) else 1e-4) for name in PASSES}
"""How near a batch's evidence is to that of its images: scores of other batch sizes differ in the last digits."""


def case(name):
    """A model that the method serves, where it looks, and the key of its evidence."""
    place = get_location(METHODS[name])
    images = torch.randn(3, 3, 16, 16)
    model = perturbed(TinyViT() if place == ATTENTION else plain_cnn(), images=images)
    return model, images, None if place else "5", place or "5"


def test_every_method_of_passes_has_a_replica():
    assert set(PASS_REPLICAS) == set(PASSES)


@pytest.mark.parametrize("name", PASSES)
def test_each_equals_its_replica_and_a_batch_its_images(name):
    model, images, layer, key = case(name)
    arguments = {"method": name, **({"layers": layer} if layer else {})}
    found = explain(model, images, target=[2, 0, 1], **arguments).evidence[key]
    expected = PASS_REPLICAS[name](model, layer, images, [2, 0, 1])
    assert_close(found, expected, 1e-6 if name == "rollout" else 1e-4)
    for i, label in enumerate([2, 0, 1]):
        single = explain(model, images[i : i + 1], target=label, **arguments).evidence[key]
        assert_close(single, found[i : i + 1], ALONE[name])


@pytest.mark.parametrize("name", PASSES)
def test_each_leaves_nothing_on_the_model(name):
    model, images, layer, _ = case(name)
    model.train()
    before = everything(model)
    explain(model, images, method=name, **({"layers": layer} if layer else {}))
    assert everything(model) == before


@pytest.mark.parametrize("name", PASSES)
def test_a_baseline_of_each_compares_and_is_found_by_its_name(name):
    model, images, layer, _ = case(name)
    baseline = Baseline.record(
        model, Probe(images.repeat(24, 1, 1, 1)), method=name, **({"layers": layer} if layer else {})
    )
    assert baseline.compare(model, profile="same-weights").passed


@pytest.mark.parametrize("name", PASSES)
def test_each_stands_beside_gradcam(name):
    model, images, _, key = case(name)
    layer = "blocks.1" if key == ATTENTION else key
    found = explain(model, images, layers=layer, method=["gradcam", name], target=1)
    assert list(found.evidence) == [f"{layer}/gradcam", f"{key}/{name}"]
    alone = explain(model, images, layers=layer, target=1).evidence[layer]
    torch.testing.assert_close(found.evidence[f"{layer}/gradcam"], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_passes_are_as_exact_as_the_first(dtype):
    """Methods run without the caller's autocast, but the passes that they ask for run in it."""
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    kinds = []

    def forward(model, probe):
        kinds.append(model(probe.images).dtype)
        return model(probe.images)

    def again(passes):
        assert not torch.is_autocast_enabled("cpu")
        passes.scores(passes.probe)
        passes.scores_from_layer("5", 0)(1, lambda output: output)
        return {"5": passes.activations["5"].sum(1)}

    with torch.autocast("cpu", dtype=dtype):
        explain(model, images, layers="5", method=again, target=1, forward=forward)
    assert set(kinds) == {dtype}


def test_a_bar_shows_on_a_terminal_only(capsys, monkeypatch):
    monkeypatch.setattr("lightning_gradcam.methods.gradient_free.PROGRESS_DELAY", 0.0)
    model, images = plain_cnn().eval(), torch.randn(1, 3, 12, 12)
    explain(model, images, layers="5", method=ScoreCAM(chunk=2), target=1)
    assert not capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    explain(model, images, layers="5", method=ScoreCAM(chunk=2), target=1)
    assert "scorecam" in capsys.readouterr().err
