"""Natural and adversarial training side by side: are robust models' explanations harder to move?

    python examples/adversarial.py

trains a small CNN on scikit-learn's bundled digits (8x8 pixels) four times, naturally, with PGD, with TRADES, and with
PGD and explanations that are to stay, and leaves one table and one picture. It takes under two minutes on two cores;
`--seeds 10` repeats it. `--data cifar10 --root DIR` does the same with torchvision's CIFAR-10, where it lies in DIR;
that wants a GPU.
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
    """What a data set is trained with: images in [0, 1], and how far an attack may change a pixel."""

    train: Dataset[Any]
    val: Dataset[Any]
    network: Callable[[], nn.Module]
    eps: float
    steps: int
    epochs: int
    learning_rate: float


def digits() -> Setting:
    """1,797 handwritten digits; every fifth one validates."""
    found = load_digits()
    images, labels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    held_out = torch.arange(len(images)) % 5 == 0
    train, val = (TensorDataset(images[rows], labels[rows]) for rows in (~held_out, held_out))
    return Setting(train, val, small_cnn, eps=0.15, steps=7, epochs=20, learning_rate=5e-3)


def small_cnn() -> nn.Module:
    """Two convolutions at full resolution, so that maps have 64 cells."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def cifar10(root: str) -> Setting:
    """CIFAR-10, and what papers train it with."""
    to_pixels = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    augmented = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), *to_pixels])
    try:
        train, val = CIFAR10(root, True, augmented), CIFAR10(root, False, v2.Compose(to_pixels))
    except RuntimeError as error:  # torchvision's
        raise SystemExit(
            f"There is no CIFAR-10 in {root!r} (a folder {CIFAR10.base_folder}, whole), and nothing is downloaded. "
            f"`torchvision.datasets.CIFAR10({root!r}, download=True)` fetches it."
        ) from error
    some = Subset(val, range(min(1000, len(val))))
    return Setting(train, some, residual_net, eps=8 / 255, steps=10, epochs=30, learning_rate=1e-3)


def residual_net() -> nn.Module:
    """ResNet-18 with a stem for small images."""
    model: nn.Module = resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def natural(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of clean images."""
    return F.cross_entropy(model(images), labels)


def trainings(setting: Setting) -> dict[str, Loss]:
    """What is compared."""
    attack = PGD(setting.eps, setting.steps)
    losses = (natural, PGDLoss(attack), TRADESLoss(attack, beta=6.0), ConsistencyLoss(attack, weight=1.0))
    return dict(zip(("natural", "PGD", "TRADES", "consistency"), losses, strict=True))


class LitRobust(LightningModule):
    """A network, and the loss that it is trained with."""

    def __init__(self, network: nn.Module, loss: Loss, learning_rate: float) -> None:
        super().__init__()
        self.network, self.loss, self.learning_rate = network, loss, learning_rate

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Whatever the training, one line."""
        return self.loss(self, *batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Clean accuracy."""
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        """Adam, and one cycle of its learning rate."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


@dataclass(frozen=True)
class Row:
    """What one training came to, on all validation images, the label's class explained.

    Args:
        training: Its name.
        seed: Of the run.
        clean: Share of clean images that are classified right.
        pgd20: Share of images attacked with 20 steps of PGD.
        similarity: Mean Spearman correlation of the clean and the attacked map.
        similarity_held: The same over images whose prediction held.
        held: Their share.
        degenerate: Share of attacked maps that cannot be read.
        classmates: Mean Spearman correlation of the maps of two clean images of one class: how much is the class's.
        others: The same of any two clean images: what chance is.
        seconds: What training took, with the callback's looks.
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
    """Train with a callback that watches 16 images being attacked; the model, and the seconds it took."""
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
    """The numbers of a `MapRow`, and images and maps for the picture."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    [(images, labels)] = DataLoader(setting.val, len(setting.val))  # type: ignore[arg-type]  # all of ours have one
    probe = Probe(images, labels=labels).to(device)
    module.to(device)
    attacked = attack_probe(module, probe, PGD(setting.eps, 20))
    found = [explain(module, each, target="label") for each in (probe, attacked)]
    clean, moved = (next(iter(each.maps.values())) for each in found)
    predicted, fooled = (each.logits.argmax(1) for each in found)
    held, alike = predicted.eq(fooled), spearman(clean, moved)
    labels = labels.to(device)
    numbers = {
        "clean": predicted.eq(labels).float().mean(),
        "pgd20": fooled.eq(labels).float().mean(),
        "similarity": alike.nanmean(),
        "similarity_held": alike[held].nanmean(),
        "held": held.float().mean(),
        "degenerate": (next(iter(found[1].map_status.values())) != 0).float().mean(),
        "classmates": spearman(clean, clean[next_of_class(labels)]).nanmean(),
        "others": spearman(clean, clean.roll(1, 0)).nanmean(),
    }
    shown = {"image": probe.images, "attacked image": attacked.images, "map": clean, "attacked map": moved}
    shown |= {"label": labels, "predicted": fooled}
    return {key: float(value) for key, value in numbers.items()}, {
        key: value[:: len(value) // 6][:6].cpu() for key, value in shown.items()
    }


def next_of_class(labels: Tensor) -> Tensor:
    """For each image, the next one with the same label; for the last of a class, its first.

    >>> next_of_class(torch.tensor([1, 0, 1, 1, 0]))
    tensor([2, 4, 3, 0, 1])
    """
    follows = torch.empty_like(labels)
    for label in set(labels.tolist()):
        rows = (labels == label).nonzero()[:, 0]
        follows[rows] = rows.roll(-1)
    return follows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Train all, write ``adversarial.md``, ``.json`` and ``.png``, and return the table's rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--root", default=".", help="where CIFAR-10 lies")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each training")
    parser.add_argument("--epochs", type=int, help="by default 20 for digits, 30 for CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("adversarial_runs"), help="where results are written")
    chosen = parser.parse_args(arguments)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    setting = digits() if chosen.data == "digits" else cifar10(chosen.root)
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    shown: dict[str, dict[str, Tensor]] = {}
    for seed in range(chosen.seeds):
        for name, loss in trainings(setting).items():
            module, seconds = fit(setting, loss, name, seed, chosen.epochs or setting.epochs, chosen.out)
            numbers, pictures = measure(module, setting)
            rows.append(Row(name, seed, **numbers, seconds=seconds))
            shown.setdefault(name, pictures)
            print(f"seed {seed}, {name}: {seconds:.0f} s, clean {rows[-1].clean:.3f}, PGD-20 {rows[-1].pgd20:.3f}")
        written = json.dumps([asdict(row) for row in rows], indent=1)
        chosen.out.joinpath("adversarial.json").write_text(written + "\n", "utf-8")
        chosen.out.joinpath("adversarial.md").write_text(table(rows), "utf-8")
    draw(rows, shown, chosen.out / "adversarial.png")
    print(f"\n{table(rows)}\nThis table, all numbers and a picture lie in {chosen.out}.")
    return rows


if __name__ == "__main__":
    main()
