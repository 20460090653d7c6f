"""Natural and adversarial training compared: are the explanations of robust models harder to change?

    python examples/adversarial.py

trains a small CNN on scikit-learn's digits (8x8 pixels) four times: naturally, with PGD, with TRADES, and with PGD and
a loss that keeps explanations stable. It writes one table and one figure and takes under two minutes on two cores;
`--seeds 10` repeats it. `--data cifar10 --root DIR` does the same with torchvision's CIFAR-10 in DIR, for which you
need a GPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from adversarial_page import draw, table
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import CIFAR10
from torchvision.models import resnet18
from torchvision.transforms import v2

from lightning_gradcam import PGD, ConsistencyLoss, GradCAMCallback, PGDLoss, Probe, TRADESLoss, attack_probe, explain
from lightning_gradcam.stability import spearman

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """A data set with images in [0, 1], a network, the radius of the attack, and training parameters."""

    train: Dataset[Any]
    val: Dataset[Any]
    network: Callable[[], nn.Module]
    eps: float
    steps: int
    epochs: int
    learning_rate: float


def digits() -> Setting:
    """Return the setting of 1,797 handwritten digits; every fifth one is for validation."""
    data = load_digits()
    images, labels = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    held_out = torch.arange(len(images)) % 5 == 0
    train, val = (TensorDataset(images[rows], labels[rows]) for rows in (~held_out, held_out))
    return Setting(train, val, small_cnn, eps=0.15, steps=7, epochs=20, learning_rate=5e-3)


def small_cnn() -> nn.Module:
    """Return a CNN with two convolutions at full resolution, so that maps have 64 cells."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def cifar10(root: str) -> Setting:
    """Return the setting of CIFAR-10, with the usual training parameters."""
    to_pixels = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    augmented = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), *to_pixels])
    try:
        train, val = CIFAR10(root, True, augmented), CIFAR10(root, False, v2.Compose(to_pixels))
    except RuntimeError as error:  # torchvision's
        raise SystemExit(
            f"Expected CIFAR-10 in {root!r} (a complete folder {CIFAR10.base_folder}), but found none. Download it "
            f"with `torchvision.datasets.CIFAR10({root!r}, download=True)`."
        ) from error
    some = Subset(val, range(min(1000, len(val))))
    return Setting(train, some, residual_net, eps=8 / 255, steps=10, epochs=30, learning_rate=1e-3)


def residual_net() -> nn.Module:
    """Return a ResNet-18 with a stem for small images."""
    model: nn.Module = resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def natural(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of clean images."""
    return F.cross_entropy(model(images), labels)


def trainings(setting: Setting) -> dict[str, Loss]:
    """Return the losses to compare, by name."""
    attack = PGD(setting.eps, setting.steps)
    losses = (natural, PGDLoss(attack), TRADESLoss(attack, beta=6.0), ConsistencyLoss(attack, weight=1.0))
    return dict(zip(("natural", "PGD", "TRADES", "consistency"), losses, strict=True))


class LitRobust(LightningModule):
    """A network with its training loss."""

    def __init__(self, network: nn.Module, loss: Loss, learning_rate: float) -> None:
        super().__init__()
        self.network, self.loss, self.learning_rate = network, loss, learning_rate

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the loss, in one line for every kind of training."""
        return self.loss(self, *batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Log clean accuracy."""
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        """Return Adam with a one-cycle learning rate."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


@dataclass(frozen=True)
class Row:
    """The results of one training on all validation images, explained for the class of the label.

    Args:
        training: The name of the training.
        seed: The seed of the run.
        clean: Accuracy on clean images.
        pgd20: Accuracy on images attacked with 20 steps of PGD.
        similarity: Mean Spearman correlation of clean and attacked maps.
        similarity_held: The same over images whose prediction held.
        held: The fraction of images whose prediction held.
        degenerate: The fraction of attacked maps that cannot be read.
        classmates: Mean Spearman correlation of the maps of two clean images of one class.
        others: The same for any two clean images: the level of chance.
        seconds: Training time, including snapshots.
    """

    training: str
    seed: int
    clean: float
    pgd20: float
    similarity: float
    similarity_held: float
    held: float
    degenerate: float
    classmates: float
    others: float
    seconds: float


def fit(setting: Setting, loss: Loss, name: str, seed: int, epochs: int, out: Path) -> tuple[LitRobust, float]:
    """Train with a callback that attacks 16 images; return the model and the training time in seconds."""
    seed_everything(seed)
    module = LitRobust(setting.network(), loss, setting.learning_rate)
    trainer = Trainer(
        max_epochs=epochs,
        logger=TensorBoardLogger(out, name=name, version=f"seed{seed}"),
        callbacks=[GradCAMCallback(attack=PGD(setting.eps, 20))],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=10,
    )
    train, val = DataLoader(setting.train, 64, shuffle=True), DataLoader(setting.val, 128)
    started = time.perf_counter()
    trainer.fit(module, train, val)
    return module, time.perf_counter() - started


def measure(module: LitRobust, setting: Setting) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the numbers of a `Row`, and images and maps for the figure."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    [(images, labels)] = DataLoader(setting.val, len(setting.val))  # type: ignore[arg-type]  # both data sets have a length
    probe = Probe(images, labels=labels).to(device)
    module.to(device)
    attacked = attack_probe(module, probe, PGD(setting.eps, 20))
    explanations = [explain(module, images, target="label") for images in (probe, attacked)]
    clean_maps, attacked_maps = (next(iter(explanation.maps.values())) for explanation in explanations)
    predicted, attacked_prediction = (explanation.logits.argmax(1) for explanation in explanations)
    unchanged, similarity = predicted.eq(attacked_prediction), spearman(clean_maps, attacked_maps)
    labels = labels.to(device)
    numbers = {
        "clean": predicted.eq(labels).float().mean(),
        "pgd20": attacked_prediction.eq(labels).float().mean(),
        "similarity": similarity.nanmean(),
        "similarity_held": similarity[unchanged].nanmean(),
        "held": unchanged.float().mean(),
        "degenerate": (next(iter(explanations[1].map_status.values())) != 0).float().mean(),
        "classmates": spearman(clean_maps, clean_maps[next_of_class(labels)]).nanmean(),
        "others": spearman(clean_maps, clean_maps.roll(1, 0)).nanmean(),
    }
    shown = {"image": probe.images, "attacked image": attacked.images, "map": clean_maps, "attacked map": attacked_maps}
    shown |= {"label": labels, "predicted": attacked_prediction}
    return {key: float(value) for key, value in numbers.items()}, {
        key: value[:: len(value) // 6][:6].cpu() for key, value in shown.items()
    }


def next_of_class(labels: Tensor) -> Tensor:
    """Return for each image the index of the next image with the same label, cyclically.

    >>> next_of_class(torch.tensor([1, 0, 1, 1, 0]))
    tensor([2, 4, 3, 0, 1])
    """
    successors = torch.empty_like(labels)
    for label in set(labels.tolist()):
        rows = (labels == label).nonzero()[:, 0]
        successors[rows] = rows.roll(-1)
    return successors


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Train all, write ``adversarial.md``, ``.json`` and ``.png``, and return the table's rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--root", default=".", help="folder of CIFAR-10")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs of each training")
    parser.add_argument("--epochs", type=int, help="default: 20 for digits, 30 for CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("adversarial_runs"), help="folder of the results")
    options = parser.parse_args(arguments)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    setting = digits() if options.data == "digits" else cifar10(options.root)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    shown: dict[str, dict[str, Tensor]] = {}
    for seed in range(options.seeds):
        for name, loss in trainings(setting).items():
            module, seconds = fit(setting, loss, name, seed, options.epochs or setting.epochs, options.out)
            numbers, pictures = measure(module, setting)
            rows.append(Row(name, seed, **numbers, seconds=seconds))
            shown.setdefault(name, pictures)
            print(f"seed {seed}, {name}: {seconds:.0f} s, clean {rows[-1].clean:.3f}, PGD-20 {rows[-1].pgd20:.3f}")
        written = json.dumps([asdict(row) for row in rows], indent=1)
        options.out.joinpath("adversarial.json").write_text(written + "\n", "utf-8")
        options.out.joinpath("adversarial.md").write_text(table(rows), "utf-8")
    draw(rows, shown, options.out / "adversarial.png")
    print(f"\n{table(rows)}\nThis table, all numbers and a figure are in {options.out}.")
    return rows


if __name__ == "__main__":
    main()
