"""Distributed runs, as a script: `test_distributed.py` starts it once for each process and reads what it leaves.

All cases run one after another in the same processes, each with the callback and without, over gloo on the CPU.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lit import Lit, fit, loader
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.nn.functional import all_reduce
from torch.distributed.tensor import DTensor

from lightning_gradcam import GradCAMCallback, explain
from lightning_gradcam.methods import METHODS


class SyncedNorm(nn.BatchNorm2d):
    """SyncBatchNorm as far as it matters here (PyTorch's own takes no CPU tensors): in training, all processes meet."""

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
    """Lightning refuses its FSDP strategy without CUDA; a subclass it lets pass, and PyTorch's FSDP runs on gloo."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(
            module=model,
            cpu_offload=self.cpu_offload,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=torch.device("cpu"),
            **self.kwargs,
        )


class Sharded(Lit):
    """For `ModelParallelStrategy`: FSDP2 over the mesh that Lightning hands over."""

    def configure_model(self):
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        for part in (self.features, self.head):
            fully_shard(part, mesh=mesh)


class ThroughChild(Lit):
    """Defines no forward of its own."""

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


class FailsToDraw(GradCAMCallback):
    def on_validation_epoch_end(self, trainer, pl_module):
        if self.watch and self.watch._sheet:
            self.watch._sheet = "no sheet"
        super().on_validation_epoch_end(trainer, pl_module)


def ddp(**kwargs: Any) -> DDPStrategy:
    return DDPStrategy(process_group_backend="gloo", **kwargs)


def fsdp(**kwargs: Any) -> FSDPStrategy:
    return CPUFSDP(auto_wrap_policy=ModuleWrapPolicy({nn.Sequential}), **kwargs)


def fsdp2() -> ModelParallelStrategy:
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)


@dataclass(frozen=True)
class Case:
    """One distributed regime."""

    strategy: Callable[[], Any] = lambda: ddp()
    make: Callable[[], LightningModule] = Lit
    gradcam: dict[str, Any] = field(default_factory=dict)
    watcher: type[GradCAMCallback] = GradCAMCallback
    trainer: dict[str, Any] = field(default_factory=dict)
    val: bool = True
    fails: str = ""  # what the one warning says
    monitors: bool = False


WINDOW = {"accumulate_grad_batches": 3, "val_check_interval": 2}
CASES = {
    "DDP": Case(monitors=True),
    "DDP, rows that do not go up": Case(gradcam={"probe": 7}),
    "DDP, more processes than images": Case(gradcam={"probe": 1}),
    "DDP, predicted class": Case(gradcam={"target": "predicted", "probe": 6}),
    "DDP, given probe": Case(gradcam={"probe": "given", "target": [0, 1, 2, 0, 1]}),
    "DDP, accumulation, validation inside the window": Case(trainer=WINDOW),
    "DDP, no validation": Case(val=False),
    "DDP, every third epoch": Case(gradcam={"every_n_epochs": 3}, monitors=True),
    "DDP, unused parameters found": Case(lambda: ddp(find_unused_parameters=True)),
    "DDP, synchronised BatchNorm": Case(make=Synced),
    "DDP, fails in the first process": Case(gradcam={"method": fails_in(0)}, fails="ValueError: not in", monitors=True),
    "DDP, fails in the second process": Case(
        gradcam={"method": fails_in(1)}, fails=r"not in this process .In process 1", monitors=True
    ),
    "DDP, fails in drawing": Case(watcher=FailsToDraw, fails="AttributeError", monitors=True),
    "FSDP": Case(fsdp, monitors=True),
    "FSDP, a layer inside a unit": Case(fsdp, gradcam={"layers": "features.4"}, trainer=WINDOW),
    "FSDP, no sanity check": Case(fsdp, gradcam={"probe": "given"}, trainer={"num_sanity_val_steps": 0}),
    "FSDP, no forward": Case(fsdp, make=ThroughChild),
    "FSDP, bf16-mixed": Case(fsdp, trainer={"precision": "bf16-mixed"}),
    "ModelParallel (FSDP2)": Case(fsdp2, make=Sharded, monitors=True),
    "ModelParallel (FSDP2), accumulation": Case(fsdp2, make=Sharded, trainer=WINDOW),
}


class Recorder(Callback):
    """What a process has at batch starts and at the end, its own shards only."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.weights: dict[str, Any] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        # Of the optimizer: FSDP2 exchanges the module's for gathered ones and back.
        parameters = [p for o in trainer.optimizers for group in o.param_groups for p in group["params"]]
        self.seen += [[_local(p) for p in parameters], [_local(p.grad) for p in parameters], batch[0].clone()]
        self.seen += [[b.clone() for b in pl_module.buffers()], [m.training for m in pl_module.modules()]]
        self.seen += [torch.get_rng_state()]

    def on_train_end(self, trainer, pl_module):
        self.on_train_batch_start(trainer, pl_module, [torch.zeros(0)], 0)
        self.seen += [_local(v) for o in trainer.optimizers for s in o.state.values() for v in s.values()]
        whole = trainer.strategy.lightning_module_state_dict()
        whole = {name: v.full_tensor() if isinstance(v, DTensor) else v for name, v in whole.items()}
        self.weights = {name: v.detach().clone() for name, v in whole.items()}


def _local(value: Any) -> Any:
    if value is None:
        return None
    value = value.to_local() if isinstance(value, DTensor) else value
    return torch.as_tensor(value).detach().clone()


def run(case: Case, folder: Path, with_callback: bool) -> dict[str, Any]:
    """One run in this process."""
    recorder, watcher = Recorder(), None
    callbacks: list[Any] = [recorder]
    if with_callback:
        chosen = dict(case.gradcam)
        if chosen.get("probe") == "given":
            images = torch.stack([loader(5, seed=3).dataset[i][0] for i in range(5)])
            chosen["probe"] = (images + torch.distributed.is_initialized(), torch.arange(5) % 3)
        watcher = case.watcher(**{"probe": 6, **chosen})
        callbacks.insert(0, watcher)
        if case.monitors:
            callbacks += [EarlyStopping("gradcam/drift", patience=9)]
            callbacks += [ModelCheckpoint(folder, monitor="gradcam/drift", save_weights_only=True)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(
            folder,
            callbacks,
            make=case.make,
            val="default" if case.val else None,
            **{"devices": 2, "max_epochs": 4, "strategy": case.strategy(), **case.trainer},
            enable_checkpointing=case.monitors and with_callback,
        )
    found = {"seen": recorder.seen, "said": [str(w.message) for w in caught if "GradCAM" in str(w.message)]}
    if watcher is None:
        return found
    ours = {k: v.clone() for k, v in trainer.callback_metrics.items() if k.startswith("gradcam/")}
    found |= {"metrics": ours, "looks": 0, "files": len(list(folder.rglob("events*")))}
    if watcher.watch is not None and watcher.watch.film.frames:
        frame, probe = watcher.watch.film.frames[-1], watcher.watch.probe
        found |= {"looks": watcher.watch.track.looks, "evidence": frame.evidence, "images": probe.images}
        if distributed.get_rank() == 0:
            found["oracle"] = _oracle(case, recorder.weights, watcher)
    return found


def _oracle(case: Case, weights: dict[str, Any], watcher: GradCAMCallback) -> Any:
    """The evidence of the last look, by one process, with the weights of the end."""
    model = case.make()
    model.load_state_dict(weights)
    layer = watcher.watch.plan.layers[0].name
    forward = (lambda m, p: m.net(p.images)) if isinstance(model, ThroughChild) else None
    target = watcher.watch.target
    return explain(model, watcher.watch.probe, layers=layer, target=target, forward=forward).evidence[layer]


if __name__ == "__main__":
    root, rank, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for name in names or CASES:
        runs = {flag: run(CASES[name], root / name / str(flag), flag) for flag in (True, False)}
        torch.save(runs, root / f"{name}.{rank}.pt")
