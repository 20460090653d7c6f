"""Hooks, tensors, threads and memory after many snapshots, compared with a run without the callback.

Run as ``python -m benchmarks.leak``. Each run has a separate process; memory is read from ``/proc``: Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.environment import ROOT, environment
from benchmarks.tables import table
from lightning_gradcam import GradCAMCallback

FACTS = ("CPU", "threads", "Python", "torch", "pytorch-lightning")
RUNS = {"with the callback": True, "without": False}

PAGE = """# No leaks

`make bench-leak` (`python -m benchmarks.leak`) writes this page; the numbers are in `benchmarks/results/leak.json`.

{facts}.

{table}

From snapshot {first} to snapshot {last}, memory changed by {grown}.

## How it was measured

A CNN with two convolutions, 16 images of 3x64x64, a Trainer with a TensorBoardLogger, one training and one validation
batch per epoch and snapshot, and all arguments of the callback at their defaults. Each run has a separate process.
After the epochs in the table, garbage is collected, and then these are counted: hooks on the modules of the model;
tensors that the garbage collector tracks; threads of the process, including those of PyTorch; and memory, resident or
swapped out, without mapped files, which the kernel drops at will. The filmstrip holds up to 16 snapshots with three
tensors each and thins them out, which is why the number of tensors rises and falls.
"""


@dataclass(frozen=True)
class Held:
    """Counts at one moment of a run.

    Args:
        snapshots: Snapshots so far, or epochs in the run without the callback.
        hooks: Hooks on all modules of the model.
        tensors: Live tensors.
        threads: Threads of the process.
        memory: Private memory of the process in bytes, including swapped memory.
    """

    snapshots: int
    hooks: int
    tensors: int
    threads: int
    memory: int

    @staticmethod
    def now(snapshots: int, model: nn.Module) -> Held:
        """Collect garbage, and count."""
        gc.collect()
        status = Path("/proc/self/status").read_text()
        return Held(
            snapshots,
            sum(len(kept) for m in model.modules() for name, kept in vars(m).items() if name.endswith("_hooks")),
            sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()),
            len(os.listdir("/proc/self/task")),
            1024 * sum(int(kib) for kib in re.findall(r"(?:RssAnon|VmSwap):\s+(\d+)", status)),
        )


class Small(LightningModule):
    """A CNN with two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Log ``val_loss``."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Counting(Callback):
    """Counts after given epochs."""

    def __init__(self, moments: Sequence[int]) -> None:
        self.moments, self.found = moments, list[Held]()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count; the previous epoch is logged, and no snapshot is taken in between."""
        if trainer.current_epoch in self.moments:
            self.found.append(Held.now(trainer.current_epoch, pl_module))


def run(moments: Sequence[int], watched: bool) -> list[Held]:
    """Train for as many epochs as snapshots.

    Args:
        moments: Numbers of snapshots after which to count.
        watched: Use the callback.
    """
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # which warns about a run as small as this
    seed_everything(0, verbose=False)
    data = DataLoader(TensorDataset(torch.rand(16, 3, 64, 64), torch.arange(16) % 4), 16)
    counting, ours = Counting(moments), GradCAMCallback(on_error="raise")
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=max(moments) + 1,
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[ours, counting] if watched else [counting],
            num_sanity_val_steps=0,  # so that the first snapshot is that of the first epoch
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Small(), data, data)
    if watched and (ours.monitor is None or ours.monitor.tracker.snapshots != max(moments) + 1):
        raise RuntimeError("Expected a snapshot in every epoch.")
    return counting.found


def markdown(runs: Mapping[str, Sequence[Held]]) -> str:
    """Return the page, with a row per run and moment."""
    found = environment()
    rows = [
        (name, *map(str, (held.snapshots, held.hooks, held.tensors, held.threads)), f"{held.memory / 2**20:.1f}")
        for name, moments in runs.items()
        for held in moments
    ]
    growth = {name: (moments[-1].memory - moments[0].memory) / 2**20 for name, moments in runs.items()}
    first, *_, last = next(iter(runs.values()))
    return PAGE.format(
        facts=", ".join(f"{name} {found[name]}" for name in FACTS),
        table=table(("", "snapshots", "hooks", "tensors", "threads", "MiB"), rows),
        first=first.snapshots,
        last=last.snapshots,
        grown=", ".join(f"{mebibytes:.1f} MiB {name}" for name, mebibytes in growth.items()),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``benchmarks/results/leak.json`` and ``docs/leak.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leak", description=main.__doc__)
    parser.add_argument("--snapshots", type=int, nargs="+", default=[50, 100, 200, 300], help="when to count")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args(arguments)
    runs = {}
    for name, watched in RUNS.items():
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            runs[name] = process.submit(run, options.snapshots, watched).result()
    page = markdown(runs)
    print(page)
    if not options.no_write:
        counts = {name: [asdict(held) for held in moments] for name, moments in runs.items()}
        results = ROOT / "benchmarks" / "results" / "leak.json"
        results.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
        (ROOT / "docs" / "leak.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
