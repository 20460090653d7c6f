"""A look stays on the device, and is honest about what it cannot say."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gradcam import GradCAMCallback, Probe
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.targets import TARGETS
from tests.helpers.lit import BODIES, Bars, Lit, bodies, fit, loader


class Waits(TorchDispatchMode):
    """Notes every operation that needs a value on the host, and so would wait for a GPU, and every value from there."""

    names = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique", "item")

    def __init__(self):
        super().__init__()
        self.seen, self.given = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0].lstrip("_")
        by_mask = name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for a in args
            if isinstance(a, (list, tuple))
            for i in a
        )  # waits for the mask's count
        if by_mask or name in [n.lstrip("_") for n in self.names]:
            self.seen.append(func.__name__)
        if name == "lift_fresh":  # `torch.tensor` and its like
            self.given.append(args[0].tolist())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("target", ["label", "predicted"])
@pytest.mark.parametrize("scale", ["image", "shared", 0.5])
def test_nothing_leaves_the_device_before_the_finished_picture(target, scale, dimensions):
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
    assert said == ["epoch 1 · drift "] * len(look.figures)  # all else was there before
    with Waits() as control:
        look.numbers["drift"].item()
        probe.images[probe.labels > 0]
        torch.tensor([1, 2])
    assert (len(control.seen), control.given) == (2, [[1, 2]])  # the instrument works


def test_scripted_parts_are_evaluated_and_put_back():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)))
    model = nn.Sequential(block, nn.Flatten())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.rand(2, 3, 8, 8)
    with isolated(model):
        assert torch.equal(model(images), model(images))  # dropout is off
        block.train()
        model(images)  # statistics move
    assert all(module.training for module in model.modules())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_monitored_number_that_cannot_be_measured_is_served_and_named(tmp_path):
    class Unlabelled(Lit):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self(batch).square().mean())

    images = torch.stack([Bars(24, seed=1)[i][0] for i in range(24)])
    stopping = EarlyStopping("gradcam/accuracy", mode="max", patience=9)
    with pytest.warns(UserWarning, match="`gradcam/accuracy` is monitored, but this run cannot measure it"):
        fit(tmp_path, [GradCAMCallback(), stopping], make=Unlabelled, val=torch.utils.data.DataLoader(images, 12))


@pytest.mark.parametrize("names", [["a", "b"]])
def test_names_are_checked_before_training_also_where_the_probe_completes_later(tmp_path, names):
    class Untrained(Lit):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training started")

    with pytest.raises(MisconfigurationException, match="3 class names"):
        fit(tmp_path, [GradCAMCallback(class_names=names)], make=Untrained, val=loader(36, 2, by_class=True))


def test_a_logger_that_refuses_words_and_numbers_ends_nothing(tmp_path, read_events):
    class Refuses(TensorBoardLogger):
        def log_metrics(self, metrics, step=None):
            if step == 0 and any("gradcam" in name for name in metrics):
                raise OSError("no numbers")
            super().log_metrics(metrics, step)

    logger = Refuses(tmp_path)
    with pytest.warns(UserWarning, match="Numbers could not be written to Refuses .OSError: no numbers"):
        fit(tmp_path, [GradCAMCallback()], logger=logger)
    assert len(read_events(logger.log_dir).Scalars("gradcam/drift")) == 2


def test_maps_that_stay_degenerate_are_named_once_whatever_the_film(tmp_path):
    class Dead(Lit):
        def forward(self, images):
            return self.head(self.features(images).mean((2, 3)) * 0)

    with pytest.warns(UserWarning, match="All maps of layer 'features' are degenerate: no gradient") as caught:
        fit(tmp_path, [GradCAMCallback(film=0)], make=Dead, max_epochs=4)
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
