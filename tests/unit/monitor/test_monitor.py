"""A snapshot stays on the device, and reports what it cannot explain."""

from __future__ import annotations

import pytest
import torch

from lightning_gradcam import GradCAMCallback, Probe
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.targets import TARGETS
from tests.helpers.detectors import Spots
from tests.helpers.device_waits import Waits
from tests.helpers.lit import BODIES, Bars, Lit, bodies, fit


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("target", ["label", "predicted"])
@pytest.mark.parametrize("scale", ["image", "shared", 0.5])
def test_snapshot_never_waits_for_the_device(target, scale, dimensions):
    data = Bars(6)
    probe, model = Probe(torch.stack([data[i][0] for i in range(6)]), labels=data.labels), Lit()
    if dimensions != 2:
        images, labels, _ = bodies(6, dimensions)
        probe, model = Probe(images, labels=labels), BODIES[dimensions]()
    plan = prepare(model, probe, target=TARGETS[target], layers="stages")
    watch = ProbeMonitor(
        probe, ShardedExplainer(plan), TARGETS[target], DisplayConfig(scale=scale), class_names=Bars.classes
    )
    for moment in ("start", "epoch 0"):
        watch.take_snapshot(model, moment)
    with Waits() as waits:
        look = watch.take_snapshot(model, "epoch 1")
    assert waits.seen == []
    assert look.figures
    font = watch.figures.sheet.font
    said = ["".join(font.characters[c] for row in given for c in row) for given in waits.given]
    assert said == ["epoch 1"] * len(look.figures)  # all else was there before
    with Waits() as control:
        look.numbers["drift"].item()
        probe.images[probe.labels > 0]
        torch.tensor([1, 2])
    assert (len(control.seen), control.given) == (2, [[1, 2]])  # the instrument works


def test_detector_snapshot_runs_no_backward_pass_twice(monkeypatch):
    """Classes of the snapshot, of the previous and of the first one: one backward pass for each different choice."""
    backward, passes = torch.autograd.grad, []

    def count(*args, **kwargs):
        passes.append(args[0])
        return backward(*args, **kwargs)

    # The first image has a box in the left half of a cell and one in the right half of another, the second image one.
    images = torch.zeros(2, 1, 64, 64)
    images[0, :, 8:16, 8:12] = images[0, :, 40:48, 44:48] = images[1, :, 8:16, 40:44] = 2.0
    probe, model, target = Probe(images), Spots(64), TARGETS["predicted"]
    plan = prepare(model, probe, target=target, layers="body")
    watch = ProbeMonitor(probe, ShardedExplainer(plan), target, DisplayConfig(), class_names="abc")
    weight = model.body[0].weight.detach().clone()
    counts, classes = [], []
    for left, right in [(1, 0.8), (1, 0.8), (0.8, 1), (0.8, 1), (1, 0.8)]:
        model.body[0].weight.data = weight * torch.tensor([left, right]).repeat_interleave(4)
        targets = watch.tracker.list_targets()
        apart = [plan(model, probe, [each])[0] for each in targets]
        for shared, alone in zip(plan(model, probe, targets), apart, strict=True):
            assert torch.equal(shared.evidence["body"], alone.evidence["body"])
            assert torch.equal(shared.classes, alone.classes)
            assert torch.equal(shared.scores[""], alone.scores[""])
        passes.clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "grad", count)
            classes.append(watch.take_snapshot(model, "epoch").explanation.classes.tolist())
        counts.append(len(passes))
    assert classes == [[1, 1], [1, 1], [2, 1], [2, 1], [1, 1]]
    assert counts == [1, 1, 2, 2, 2]


def test_degenerate_layer_warns_once_without_film(tmp_path):
    class Dead(Lit):
        def forward(self, images):
            return self.head(self.features(images).mean((2, 3)) * 0)

    with pytest.warns(UserWarning, match="All maps of layer 'features' are degenerate: no gradient") as caught:
        fit(tmp_path, [GradCAMCallback(film=0)], make=Dead, max_epochs=4)
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
