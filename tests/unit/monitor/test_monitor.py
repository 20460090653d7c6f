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


def test_degenerate_layer_warns_once_without_film(tmp_path):
    class Dead(Lit):
        def forward(self, images):
            return self.head(self.features(images).mean((2, 3)) * 0)

    with pytest.warns(UserWarning, match="All maps of layer 'features' are degenerate: no gradient") as caught:
        fit(tmp_path, [GradCAMCallback(film=0)], make=Dead, max_epochs=4)
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
