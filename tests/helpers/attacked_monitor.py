"""A monitor with an attack, for its tests and those of its figures."""

from __future__ import annotations

import torch

from lightning_gradcam import Normalization, Probe
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.targets import TARGETS
from tests.helpers.lit import Bars, Lit
from tests.helpers.models import perturbed

NORM = Normalization((0.4, 0.4, 0.4), (0.25, 0.25, 0.25))


def bars(count=9, labels=True):
    data = Bars(count)
    return Probe(torch.stack([data[i][0] for i in range(count)]), labels=data.labels if labels else None, pixels=NORM)


def undecided(probe):
    """A model that predicts several classes, and others where it is attacked."""
    model = perturbed(Lit())
    with torch.no_grad():
        model.head.bias -= model(probe.images).mean(0)
    return model


def watched(attack, probe=None, target="label", model=None, **how):
    torch.manual_seed(3)
    probe, model = probe or bars(), model or undecided(probe or bars())
    plan = prepare(model, probe, target=TARGETS[target], **{"layers": ["features", "features.2"], **how})
    watch = ProbeMonitor(
        probe, ShardedExplainer(plan), TARGETS[target], DisplayConfig(), class_names=Bars.classes, attack=attack
    )
    return watch, model
