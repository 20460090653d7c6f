"""Transfers of a snapshot to the host: each finished figure once, and nothing else."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.overrides import TorchFunctionMode

from lightning_gradcam import Probe
from lightning_gradcam.attacks import PGD
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.loggers import log_image
from lightning_gradcam.methods import EQUATIONS
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.targets import TARGETS
from tests.helpers.device_waits import Waits
from tests.helpers.lit import Bars, Lit
from tests.helpers.models import perturbed

READS = ("numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__", "__array__")


class Leaving(TorchFunctionMode):
    """Notes what is asked to the host: copies, and values of tensors that no copy has brought there.

    By the words of the call, since on a CPU nothing moves; `.to(x.device)` goes where ``x`` is.
    """

    def __init__(self):
        super().__init__()
        self.copies, self.reads, self._on_host = [], [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        found = func(*args, **(kwargs or {}))
        if name == "cpu" or (name == "to" and "cpu" in [a for a in args[1:] if isinstance(a, str)]):
            self.copies.append(args[0])
            self._on_host.append(found)
        elif name in READS and not any(args[0] is known for known in self._on_host):
            self.reads.append(name)
        return found


def watched(layers, methods, attack=None, device="cpu"):
    data = Bars(6)
    images = torch.stack([data[i][0] for i in range(6)]).to(device)
    pixels = Normalization((0.4,) * 3, (0.25,) * 3)
    probe = Probe(images, labels=data.labels.to(device), pixels=pixels)
    model = perturbed(Lit()).to(device)
    plan = prepare(model, probe, target=TARGETS["label"], layers=layers, method=methods)
    watch = ProbeMonitor(
        probe, ShardedExplainer(plan), TARGETS["label"], DisplayConfig(), class_names=Bars.classes, attack=attack
    )
    watch.take_snapshot(model, "start")
    return watch, model


LAYERS = [["features"], ["features.2", "features.5", "features"]]


@pytest.mark.parametrize("layers", LAYERS, ids=len)
@pytest.mark.parametrize("methods", [["gradcam"], [*EQUATIONS]], ids=len)
def test_each_figure_is_copied_to_the_host_once(tmp_path, layers, methods):
    if "cam" in methods and len(layers) > 1:
        methods = [name for name in methods if name != "cam"]  # which serves the last layer only
    watch, model = watched(layers, methods)
    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path)]
    with Waits() as waits, Leaving() as leaving:
        look = watch.take_snapshot(model, "epoch 1")
        assert len(leaving.copies) == 0
        for key, picture in look.figures.items():
            assert log_image(loggers, key, picture, 1) == []
    assert (waits.seen, leaving.reads) == ([], [])
    assert len(leaving.copies) == len(look.figures) == len(layers)
    for copied, picture in zip(leaving.copies, look.figures.values(), strict=True):
        assert copied is picture
        assert (copied.dtype, copied.shape[0]) == (torch.uint8, 3)
    loggers[0].finalize("success")


def test_attack_waits_in_checks_and_not_in_steps():
    seen = []
    for steps in (2, 5):
        watch, model = watched(["features"], ["gradcam"], PGD(0.05, steps))
        with Waits() as waits, Leaving() as leaving:
            watch.take_snapshot(model, "epoch 1")
        seen.append((len(waits.seen), leaving.reads))
        assert len(leaving.copies) == 0
    assert seen[0] == seen[1]


def test_recorders_see_reads_and_copies():
    numbers = torch.rand(3)
    with Leaving() as leaving:
        bool(numbers[0] > 0)
        numbers.tolist()
        brought = numbers.to("cpu")
        brought.tolist()
        numbers.double().cpu().numpy()
    assert leaving.reads == ["__bool__", "tolist"]
    assert len(leaving.copies) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits of a GPU can only be seen where there is one")
@pytest.mark.parametrize("layers", LAYERS, ids=len)
def test_snapshot_on_gpu_never_synchronizes(layers):
    watch, model = watched(layers, ["gradcam", "layercam"], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        look = watch.take_snapshot(model, "epoch 1")  # raises where the host waits for the GPU
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert list(look.figures) == layers
