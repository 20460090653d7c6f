"""Training with and without the callback: what an epoch costs, and the fraction that snapshots take."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from benchmarks.environment import ROOT
from benchmarks.speed.cases import photos
from benchmarks.speed.estimates import Estimate, estimated, ratio
from benchmarks.speed.rounds import Options, wait
from benchmarks.tables import table
from lightning_gradcam import GradCAMCallback

sys.path.append(str(ROOT / "examples"))  # examples are scripts, not a package
from digits import DigitsData, LitDigits

PROFILED = "[GradCAMCallback]gradcam.snapshot"
WITH, WITHOUT = "with", "without"
PAIRS, EPOCHS = 5, 4
SYNTHETIC = {"32x32": (32, 128, (1_000, 10_000, 50_000)), "224x224": (224, 16, (1_000, 10_000, 50_000))}
"""By name: pixels, batch size, and the sizes of an epoch that are reported."""

HOW = f"""The digits are those of `examples/digits.py`, with its model, batches and validation, and the defaults of the
callback (16 images, one snapshot per epoch). Runs with and without the callback take turns, {PAIRS} of each, of
{EPOCHS} epochs; the first epoch is discarded. An epoch lasts from its first hook to its last, including validation,
snapshot, logging, and the time that TensorBoard's thread takes from it. The other rows are a torchvision ResNet-18 with
SGD on random photos: steps and snapshots are measured in runs with and without the callback, and **an epoch of that
size is extrapolated, not run**: the number of steps times the median step, plus one snapshot. A step *with* belongs to
a run with the callback, whose thread may still be writing."""


class Photos(LightningModule):
    """A ResNet-18 with SGD."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net(images)
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


class Clock(Callback):
    """Records the milliseconds of every epoch and every step."""

    def __init__(self, device: str) -> None:
        self.device, self.epochs, self.steps, self._since = device, list[float](), list[float](), [0.0, 0.0]

    def _start(self, which: int) -> None:
        wait(self.device)
        self._since[which] = perf_counter()

    def _passed(self, which: int) -> float:
        wait(self.device)
        return 1000 * (perf_counter() - self._since[which])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start timing an epoch."""
        self._start(0)

    def on_train_batch_start(self, *_: Any) -> None:
        """Start timing a step."""
        self._start(1)

    def on_train_batch_end(self, *_: Any) -> None:
        """Record a step."""
        self.steps.append(self._passed(1))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Record an epoch; callbacks earlier in the list have already run."""
        self.epochs.append(self._passed(0))


def fitted(
    make: Callable[[], LightningModule], data: Mapping[str, Any], watched: bool, epochs: int, device: str
) -> Any:
    """Return the milliseconds of epochs, steps and snapshots of one run, and on a GPU its peak memory in bytes."""
    seed_everything(0, verbose=False)
    clock = Clock(device)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="gpu" if device.startswith("cuda") else "cpu",
            devices=1,
            logger=TensorBoardLogger(folder),
            profiler="simple",
            callbacks=[GradCAMCallback(on_error="raise"), clock] if watched else [clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        profiler = vars(trainer)["profiler"]
        profiler.describe = lambda: None  # do not print its table
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        trainer.fit(make(), **data)
        snapshots = [1000 * seconds for seconds in profiler.recorded_durations.get(PROFILED, [])]
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
    return {"epochs": clock.epochs[1:], "steps": clock.steps[2:], "snapshots": snapshots[1:], "peak": peak}


def measure(options: Options) -> dict[str, Any]:
    """Measure epochs on the digits, and steps on larger images."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # which warns about runs as small as these
    logging.disable(logging.INFO)  # Lightning's log lines of each run
    print("  digits", flush=True)
    pairs = 1 if options.quick else PAIRS
    epochs = 2 if options.quick else EPOCHS
    found: dict[str, Any] = {"digits": _pairs(LitDigits, {"datamodule": DigitsData()}, pairs, epochs, options.device)}
    for name, (pixels, batch, _) in SYNTHETIC.items():
        print(f"  {name}", flush=True)
        count = batch * (3 if options.quick else 5)
        images = photos(count, pixels)
        data = TensorDataset(images, torch.arange(count) % 10)
        validation = DataLoader(TensorDataset(images[:16], torch.arange(16) % 10), 16)
        loaders = {"train_dataloaders": DataLoader(data, batch), "val_dataloaders": validation}
        found[name] = _pairs(Photos, loaders, 1 if options.quick else 2, min(epochs, 3), options.device)
    return found


def _pairs(make: Any, data: Mapping[str, Any], pairs: int, epochs: int, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {WITH: [], WITHOUT: []}
    for pair in range(pairs):
        for which in (WITH, WITHOUT) if pair % 2 else (WITHOUT, WITH):
            found[which].append(fitted(make, data, which == WITH, epochs, device))
    return found


def page(found: Mapping[str, Any]) -> str:
    """Return the section."""
    runs = found["digits"]
    with_it, without = ([median(run["epochs"]) for run in runs[which]] for which in (WITH, WITHOUT))
    snapshot = estimated([each for run in runs[WITH] for each in run["snapshots"]])
    rows = [
        (
            "digits, 1,437 images of 32x32",
            _seconds(median(without)),
            _seconds(median(with_it)),
            str(ratio(with_it, without)),
            _ms(snapshot),
            f"{snapshot.value / median(with_it):.1%}",
        )
    ]
    for name, (_, batch, sizes) in SYNTHETIC.items():
        runs = found[name]
        steps = {which: [s for run in runs[which] for s in run["steps"]] for which in (WITH, WITHOUT)}
        snapshot = estimated([each for run in runs[WITH] for each in run["snapshots"]])
        for size in sizes:
            without_it = size / batch * median(steps[WITHOUT])
            with_one = size / batch * median(steps[WITH]) + snapshot.value
            share = snapshot.value / (without_it + snapshot.value)
            cells = (
                _seconds(without_it),
                _seconds(with_one),
                f"{with_one / without_it:.2f}",
                _ms(snapshot),
                f"{share:.3%}",
            )
            rows.append((f"{size:,} images of {name}, extrapolated", *cells))
    head = ("epoch", "without, s", "with, s", "with / without", "snapshot, ms", "time in snapshots")
    parts = [table(head, rows), HOW]
    if found["digits"][WITH][0]["peak"]:
        peaks = {w: max(run["peak"] for run in found["224x224"][w]) / 2**20 for w in (WITH, WITHOUT)}
        parts.insert(1, f"GPU memory, 224x224: {peaks[WITH]:.0f} MiB with, {peaks[WITHOUT]:.0f} MiB without.")
    return "\n\n".join(parts)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f}" if milliseconds < 1e5 else f"{milliseconds / 1000:,.0f}"


def _ms(time: Estimate) -> str:
    return f"{time.value:.0f} ({time.low:.0f}–{time.high:.0f})"


def losses(found: Mapping[str, Any]) -> list[str]:
    """List the run in which snapshots take more than a twentieth of an epoch."""
    runs = found["digits"]
    share = median([each for run in runs[WITH] for each in run["snapshots"]]) / median(
        [each for run in runs[WITH] for each in run["epochs"]]
    )
    return [f"a snapshot per epoch of the digits takes {share:.0%} of it"] * (share > 0.05)
