"""Looks leave nothing behind: no tensor, no hook, no thread, however many there were."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from lightning_gradcam import GradCAMCallback, NotExplainableError, Probe
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.methods import METHODS
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.targets import TARGETS
from tests.helpers.lit import Bars, Lit, fit, loader

LOOKS = (5, 15, 25)


def left(model):
    """How many tensors live, hooks wait on the model, and threads run."""
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    hooks = sum(len(value) for m in model.modules() for name, value in vars(m).items() if name.endswith("_hooks"))
    return {"tensors": tensors, "hooks": hooks, "threads": threading.active_count()}


def watch_of(model, method="gradcam", film=0):
    data = Bars(6)
    probe = Probe(torch.stack([data[i][0] for i in range(6)]), labels=data.labels)
    plan = prepare(model, probe, target=TARGETS["label"], layers="stages", method=method)
    return ProbeMonitor(probe, ShardedExplainer(plan), TARGETS["label"], DisplayConfig(film=film, scale="shared"))


def counts_after(looks, look, model):
    found = []
    for i in range(1, max(looks) + 1):
        look(i)
        if i in looks:
            found.append(left(model))
    return found


@pytest.mark.parametrize("film", [0, 4])
def test_looks_leave_nothing(film):
    model = Lit()
    watch = watch_of(model, film=film)
    kept = []

    def look(i):
        watch.take_snapshot(model, f"epoch {i}")
        if i in LOOKS:
            kept.append(
                sum(isinstance(value, torch.Tensor) for f in watch.figures.film.frames for value in vars(f).values())
            )

    found = counts_after(LOOKS, look, model)
    assert max(kept) <= 3 * 2 * film  # before it thins out, the film holds up to twice as many looks as it shows
    for counts, frames in zip(found, kept, strict=True):
        counts["tensors"] -= frames
    first, *others = found
    assert first["hooks"] == 0
    assert first["tensors"] > 20  # weights at least: the instrument works
    assert others == [first, first]


class HalfwayError(Exception):
    pass


@pytest.mark.parametrize("place", ["forward", "method"])
def test_a_look_that_fails_halfway_leaves_nothing(place):
    model, calls, failed = Lit(), [], []

    def breaks_later(activations, gradients):
        calls.append(place)
        if len(calls) > 3:  # at the second layer of the second look
            raise HalfwayError
        return METHODS["gradcam"](activations, gradients)

    def breaks(features):
        raise HalfwayError

    watch = watch_of(model, breaks_later if place == "method" else "gradcam")
    if place == "forward":
        model.head.forward = breaks

    def look(i):
        try:
            watch.take_snapshot(model, f"epoch {i}")
        except (HalfwayError, NotExplainableError):
            failed.append(i)

    first, *others = counts_after(LOOKS, look, model)
    assert failed == list(range(2 if place == "method" else 1, 26))
    assert first["hooks"] == 0
    assert others == [first, first]


def test_a_run_with_looks_leaves_what_one_without_does(tmp_path):
    """Over epochs; what Lightning itself gathers is in both."""

    def counts(callbacks):
        found = {}

        class Counts(Lit):
            def on_train_epoch_start(self):
                if self.current_epoch in LOOKS:
                    found[self.current_epoch] = left(self)

        data = {"train": loader(6, 6), "val": loader(12, 6)}
        fit(tmp_path, callbacks, make=Counts, max_epochs=max(LOOKS) + 1, **data)
        assert list(found) == list(LOOKS)
        first = found[LOOKS[0]]
        return [{name: later[name] - first[name] for name in first} for later in found.values()]

    assert counts([GradCAMCallback(film=0, probe=2)]) == counts([])
