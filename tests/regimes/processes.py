"""Regimes of several processes, two over gloo on the CPU; `tests/helpers/processes.py` runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import distributed, nn
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.nn.functional import all_reduce

from lightning_gradcam import GradCAMCallback
from lightning_gradcam.methods import METHODS
from tests.helpers.lit import Lit


class SyncedNorm(nn.BatchNorm2d):
    """A SyncBatchNorm for CPU tensors, which PyTorch's own refuses: in training, all ranks communicate."""

    def forward(self, images):
        if not self.training:
            return super().forward(images)
        mean = all_reduce(images.mean((0, 2, 3))) / distributed.get_world_size()
        square = all_reduce((images**2).mean((0, 2, 3))) / distributed.get_world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean, 0.1)
        shape = (1, -1, 1, 1)
        scaled = (images - mean.view(shape)) * (square - mean**2 + self.eps).rsqrt().view(shape)
        return scaled * self.weight.view(shape) + self.bias.view(shape)


class Synced(Lit):
    def __init__(self):
        super().__init__()
        self.features[1] = SyncedNorm(8)


class CPUFSDP(FSDPStrategy):
    """FSDP on the CPU: Lightning refuses its strategy without CUDA, but not a subclass; FSDP itself runs on gloo."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(
            module=model,
            cpu_offload=self.cpu_offload,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=torch.device("cpu"),
            **self.kwargs,
        )

    def lightning_module_state_dict(self):
        """Return the complete weights on rank zero, not offloaded: PyTorch 2.6 crashes where they are on the CPU."""
        config = FullStateDictConfig(rank0_only=True)
        with FullyShardedDataParallel.state_dict_type(self.model, StateDictType.FULL_STATE_DICT, config):
            return self.model.state_dict()


class Sharded(Lit):
    """A module for `ModelParallelStrategy`: FSDP2 over the mesh that Lightning provides."""

    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        for part in (self.features, self.head):
            fully_shard(part, mesh=mesh)


class Refusing(nn.Module):
    def forward(self, features):
        if not self.training and torch.is_grad_enabled():
            raise RuntimeError("not explained")
        return features


class RefusesTrace(Lit):
    """A module that fails in the trace, inside an FSDP unit, while it is gathered and cast."""

    def __init__(self):
        super().__init__()
        self.features.append(Refusing())


class ThroughChild(Lit):
    """A module that defines no `forward`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(self.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.head)
        del self.features, self.head

    forward = LightningModule.forward

    def loss(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


def fails_in(*ranks: int) -> Callable[..., Any]:
    def method(activations, gradients):
        if distributed.get_rank() in ranks:
            raise ValueError("not in this process")
        return METHODS["gradcam"](activations, gradients)

    return method


def runs_out_in(rank: int) -> Callable[..., Any]:
    def method(activations, gradients):
        if distributed.get_rank() == rank and len(activations) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return METHODS["gradcam"](activations, gradients)

    return method


class Buffered(Lit):
    """A module with buffers of many dtypes and layouts."""

    def __init__(self):
        super().__init__()
        for kind in (torch.bool, torch.uint8, torch.int64, torch.float64):
            self.register_buffer(f"some_{kind}".replace(".", "_"), torch.ones(3, 2, dtype=kind).t())
        self.register_buffer("nothing", torch.empty(0))


class FailsToMeasure(GradCAMCallback):
    def on_validation_epoch_end(self, trainer, pl_module):
        if self.monitor and trainer.global_rank == 1:
            self.monitor.tracker.measure = self.fail
        super().on_validation_epoch_end(trainer, pl_module)

    def fail(self, *_):
        raise ValueError("not in this process")


class FailsToDraw(GradCAMCallback):
    def on_validation_epoch_end(self, trainer, pl_module):
        if self.monitor and self.monitor.figures:
            self.monitor.figures.sheet = "no sheet"
        super().on_validation_epoch_end(trainer, pl_module)


PATIENCE = timedelta(seconds=60)
"""The timeout of processes that wait for each other."""


def ddp(**kwargs: Any) -> DDPStrategy:
    return DDPStrategy(process_group_backend="gloo", timeout=PATIENCE, **kwargs)


def fsdp() -> FSDPStrategy:
    return CPUFSDP(auto_wrap_policy=ModuleWrapPolicy({nn.Sequential}), timeout=PATIENCE)


def fsdp2() -> ModelParallelStrategy:
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, timeout=PATIENCE)


@dataclass(frozen=True)
class Case:
    """One distributed regime; `about`, `breaks` and `skip` as in `Regime`."""

    about: str
    breaks: str
    strategy: Callable[..., Any]
    make: Callable[[], LightningModule] = Lit
    gradcam: dict[str, Any] = field(default_factory=dict)
    watcher: type[GradCAMCallback] = GradCAMCallback
    trainer: dict[str, Any] = field(default_factory=dict)
    val: bool = True
    fails: str = ""  # words of the one warning of a run whose explanations end
    warns: str = ""  # words of the one warning of a run whose explanations go on
    monitors: bool = False
    skip: str = ""


NO_FSDP2 = "" if hasattr(torch.cpu.Stream, "record_event") else "FSDP2 of PyTorch 2.6 does not run on the CPU"
WINDOW = {"accumulate_grad_batches": 3, "val_check_interval": 2}
BF16 = {"precision": "bf16-mixed"}
CASES = {
    "DDP": Case(
        "each rank explains its shard; EarlyStopping and ModelCheckpoint monitor the drift",
        "torch random state", ddp, monitors=True,
    ),
    "DDP, uneven shards": Case(
        "7 images, 2 ranks", "rows joined", ddp, gradcam={"probe": 7},
    ),
    "DDP, more ranks than images": Case(
        "1 image, 2 ranks", "rows joined", ddp, gradcam={"probe": 1},
    ),
    "DDP, predicted class": Case(
        "classes are fixed between snapshots", "rows of targets", ddp, gradcam={"target": "predicted", "probe": 6},
    ),
    "DDP, given probe": Case(
        "every rank is given other images", "one probe for all", ddp,
        gradcam={"probe": "given", "target": [0, 1, 2, 0, 1]},
    ),
    "DDP, attacked": Case(
        "each rank attacks its shard", "rows of targets", ddp, gradcam={"attack": "pgd", "probe": 7}, monitors=True,
    ),
    "DDP, accumulation": Case(
        "validations inside the accumulation window", "torch random state", ddp, trainer=WINDOW,
    ),
    "DDP, no validation": Case(
        "BatchNorm statistics differ between ranks", "buffers of the first", ddp, make=Buffered, val=False,
    ),
    "DDP, every third epoch": Case(
        "values are repeated in between", "torch random state", ddp, gradcam={"every_n_epochs": 3}, monitors=True,
        warns="`patience=9` waits for 3 new values",
    ),
    "DDP, unused parameters found": Case(
        "the reducer traverses the graph", "hooks", partial(ddp, find_unused_parameters=True),
    ),
    "DDP, synchronized BatchNorm": Case(
        "ranks communicate in each layer during training", "evaluation", ddp, make=Synced,
    ),
    "DDP, fails on rank zero": Case(
        "only rank zero cannot explain", "all fail together", ddp, gradcam={"method": fails_in(0)},
        fails="not in this process", monitors=True,
    ),
    "DDP, fails on rank one": Case(
        "a rank that does not log cannot explain", "all fail together", ddp, gradcam={"method": fails_in(1)},
        fails=r"not in this process .In process 1", monitors=True,
    ),
    "DDP, fails in drawing": Case(
        "only rank zero draws", "values of the first", ddp, watcher=FailsToDraw, fails="AttributeError",
        monitors=True,
    ),
    "DDP, memory runs out on rank one": Case(
        "it then explains one image at a time", "each process has its memory", ddp,
        gradcam={"method": runs_out_in(1)},
    ),
    "DDP, fails to measure on rank one": Case(
        "it would have nothing to compare with in the next snapshot", "measured together", ddp, watcher=FailsToMeasure,
        gradcam={"target": "predicted"}, fails="not in this process", monitors=True,
    ),
    "FSDP": Case(
        "no rank has the complete model: all run it together", "through the wrapper", fsdp, monitors=True,
    ),
    "FSDP, inside a unit": Case(
        "the layer is inside a wrapped module", "names without wrappers", fsdp, gradcam={"layers": "features.4"},
        trainer=WINDOW,
    ),
    "FSDP, no sanity check": Case(
        "no forward pass before the first step", "FSDP sets itself up", fsdp, gradcam={"probe": "given"},
        trainer={"num_sanity_val_steps": 0, **BF16},
    ),
    "FSDP, no forward": Case(
        "the module defines no `forward`", "through the wrapper", fsdp, make=ThroughChild,
    ),
    "FSDP, fails in the forward pass": Case(
        "inside a unit, while it is gathered and cast", "hooks", fsdp, make=RefusesTrace,
        fails="not explained", monitors=True, trainer=BF16,
    ),
    "FSDP, bf16-mixed": Case(
        "the wrapper casts images", "cast by the wrapper", fsdp, trainer=BF16,
    ),
    "ModelParallel": Case(
        "FSDP2 over the mesh", "strategies that are served", fsdp2, make=Sharded, monitors=True,
        skip=NO_FSDP2,
    ),
    "ModelParallel, accumulation": Case(
        "validations inside the accumulation window", "gradients", fsdp2, make=Sharded, trainer=WINDOW,
        skip=NO_FSDP2,
    ),
}  # fmt: skip
