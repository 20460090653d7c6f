"""Runs in several processes, as a script: `test_distributed` starts it once for each and reads what it leaves.

All cases run one after another in the same processes, each with the callback and without.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import distributed
from torch.distributed.tensor import DTensor

from lightning_gradcam import GradCAMCallback, explain
from lightning_gradcam.monitor.monitor import ProbeMonitor, Snapshot
from tests.helpers.lit import fit, loader
from tests.regimes.processes import CASES, Case, ThroughChild


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
        # A part of FSDP that takes itself for the root would gather by itself, out of step with the others.
        self.seen += [torch.get_rng_state(), [getattr(m, "_is_root", "") for m in pl_module.modules()]]
        self.seen += [[len(module._forward_hooks) for module in pl_module.modules()]]

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


@contextmanager
def recorded_snapshots() -> Iterator[list[Snapshot]]:
    """Collect the snapshots that this process takes."""
    snapshots: list[Snapshot] = []
    take_snapshot = ProbeMonitor.take_snapshot

    def record(monitor: ProbeMonitor, *args: Any) -> Snapshot:
        snapshots.append(take_snapshot(monitor, *args))
        return snapshots[-1]

    with mock.patch.object(ProbeMonitor, "take_snapshot", record):
        yield snapshots


def run(case: Case, folder: Path, with_callback: bool) -> dict[str, Any]:
    """One run in this process."""
    recorder, watcher = Recorder(), None
    callbacks: list[Any] = [recorder]
    if with_callback:
        chosen = dict(case.gradcam)
        if chosen.get("probe") == "given":
            images = torch.stack([loader(5, seed=3).dataset[i][0] for i in range(5)])
            chosen["probe"] = (images + int(os.environ["RANK"]), torch.arange(5) % 3)
        watcher = case.watcher(**{"probe": 6, **chosen})
        callbacks.insert(0, watcher)
        if case.monitors:
            callbacks += [EarlyStopping("gradcam/drift", patience=9)]
            callbacks += [ModelCheckpoint(folder, monitor="gradcam/drift", save_weights_only=True)]
    with warnings.catch_warnings(record=True) as caught, recorded_snapshots() as snapshots:
        warnings.simplefilter("always")
        trainer = fit(
            folder,
            callbacks,
            make=case.make,
            val="default" if case.val else None,
            **{"devices": 2, "max_epochs": 4, "strategy": case.strategy(), **case.trainer},
            enable_checkpointing=case.monitors and with_callback,
        )
    found = {"seen": recorder.seen, "said": [str(w.message) for w in caught if "gradcam" in str(w.message).lower()]}
    if watcher is None:
        return found
    ours = {k: v.clone() for k, v in trainer.callback_metrics.items() if k.startswith("gradcam/")}
    found |= {"metrics": ours, "looks": 0, "files": len(list(folder.rglob("events*")))}
    if watcher.monitor is not None and snapshots:
        evidence, probe = next(iter(snapshots[-1].explanation.evidence.values())), watcher.monitor.probe
        found |= {"looks": watcher.monitor.tracker.snapshots, "evidence": evidence, "images": probe.images}
        if distributed.get_rank() == 0:
            found["oracle"] = _oracle(case, recorder.weights, watcher)
    return found


def _oracle(case: Case, weights: dict[str, Any], watcher: GradCAMCallback) -> Any:
    """The evidence of the last look, by one process, with the weights of the end."""
    model = case.make()
    model.load_state_dict(weights)
    layer = watcher.monitor.explainer.layers[0].name
    forward = (lambda m, p: m.net(p.images)) if isinstance(model, ThroughChild) else None
    target = watcher.monitor.target
    return explain(model, watcher.monitor.probe, layers=layer, target=target, forward=forward).evidence[layer]


if __name__ == "__main__":
    root, rank, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for name in names or CASES:
        runs = {flag: run(CASES[name], root / name / str(flag), flag) for flag in (True, False)}
        torch.save(runs, root / f"{name}.{rank}.pt")
