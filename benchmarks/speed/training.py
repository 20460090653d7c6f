"""A training run with and without the callback: what an epoch costs, and what share of it looks take."""

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

sys.path.append(str(ROOT / "examples"))  # which are scripts
from digits import DigitsData, LitDigits

LOOK = "[GradCAMCallback]gradcam.snapshot"
WITH, WITHOUT = "with", "without"
PAIRS, EPOCHS = 5, 4
SYNTHETIC = {"32x32": (32, 128, (1_000, 10_000, 50_000)), "224x224": (224, 16, (1_000, 10_000, 50_000))}
"""By name: pixels, images in a batch, and in how many images an epoch is told for."""

HOW = f"""The digits are those of `examples/digits.py`, its model, batches and validation, with the callback's
defaults (16 images, a look each epoch). Runs with and without take turns, {PAIRS} of each, of {EPOCHS} epochs, the
first of which does not count: an epoch is from its first hook to its last, validation, look and logging among it, and
what TensorBoard's thread takes off it. The others are a torchvision ResNet-18 with SGD on random photos; measured are
steps and looks of runs with and without, and **an epoch of so many images is reckoned from them, not run**: steps
times the median of a step, and one look. A step *with* is one of a run with the callback, whose thread may still be
writing."""


class Photos(LightningModule):
    """A ResNet-18 with SGD."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Cross entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Logged as ``val_loss``."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Clock(Callback):
    """Milliseconds of every epoch and every step."""

    def __init__(self, device: str) -> None:
        self.device, self.epochs, self.steps, self._since = device, list[float](), list[float](), [0.0, 0.0]

    def _start(self, which: int) -> None:
        wait(self.device)
        self._since[which] = perf_counter()

    def _passed(self, which: int) -> float:
        wait(self.device)
        return 1000 * (perf_counter() - self._since[which])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """An epoch begins."""
        self._start(0)

    def on_train_batch_start(self, *_: Any) -> None:
        """A step begins."""
        self._start(1)

    def on_train_batch_end(self, *_: Any) -> None:
        """A step ends."""
        self.steps.append(self._passed(1))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """An epoch ends; callbacks given earlier have been here before."""
        self.epochs.append(self._passed(0))


def fitted(
    make: Callable[[], LightningModule], data: Mapping[str, Any], watched: bool, epochs: int, device: str
) -> Any:
    """Epochs, steps and looks of one run, in ms, and on a GPU the peak of its memory in bytes."""
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
        profiler.describe = lambda: None  # its table is not wanted
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        trainer.fit(make(), **data)
        looks = [1000 * seconds for seconds in profiler.recorded_durations.get(LOOK, [])]
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
    return {"epochs": clock.epochs[1:], "steps": clock.steps[2:], "looks": looks[1:], "peak": peak}


def measure(options: Options) -> dict[str, Any]:
    """The digits, epoch by epoch, and steps of larger images."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # about runs as small as these
    logging.disable(logging.INFO)  # what Lightning tells of each run
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
    """The section."""
    runs = found["digits"]
    with_it, without = ([median(run["epochs"]) for run in runs[which]] for which in (WITH, WITHOUT))
    look = estimated([each for run in runs[WITH] for each in run["looks"]])
    rows = [
        (
            "digits, 1,437 images of 32x32",
            _seconds(median(without)),
            _seconds(median(with_it)),
            str(ratio(with_it, without)),
            _ms(look),
            f"{look.value / median(with_it):.1%}",
        )
    ]
    for name, (_, batch, sizes) in SYNTHETIC.items():
        runs = found[name]
        steps = {which: [s for run in runs[which] for s in run["steps"]] for which in (WITH, WITHOUT)}
        look = estimated([each for run in runs[WITH] for each in run["looks"]])
        for size in sizes:
            without_it = size / batch * median(steps[WITHOUT])
            with_one = size / batch * median(steps[WITH]) + look.value
            share = look.value / (without_it + look.value)
            cells = (
                _seconds(without_it),
                _seconds(with_one),
                f"{with_one / without_it:.2f}",
                _ms(look),
                f"{share:.3%}",
            )
            rows.append((f"{size:,} images of {name}, reckoned", *cells))
    head = ("an epoch", "without, s", "with, s", "with over without", "a look, ms", "share of looks")
    parts = [table(head, rows), HOW]
    if found["digits"][WITH][0]["peak"]:
        peaks = {w: max(run["peak"] for run in found["224x224"][w]) / 2**20 for w in (WITH, WITHOUT)}
        parts.insert(1, f"GPU memory, 224x224: {peaks[WITH]:.0f} MiB with, {peaks[WITHOUT]:.0f} MiB without.")
    return "\n\n".join(parts)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f}" if milliseconds < 1e5 else f"{milliseconds / 1000:,.0f}"


def _ms(look: Estimate) -> str:
    return f"{look.value:.0f} ({look.low:.0f}–{look.high:.0f})"


def losses(found: Mapping[str, Any]) -> list[str]:
    """Where looks take more than a twentieth of an epoch."""
    runs = found["digits"]
    share = median([each for run in runs[WITH] for each in run["looks"]]) / median(
        [each for run in runs[WITH] for each in run["epochs"]]
    )
    return [f"a look at each epoch of the digits takes {share:.0%} of it"] * (share > 0.05)
