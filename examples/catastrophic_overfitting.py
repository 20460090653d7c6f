"""Fast adversarial training that collapses, and curves that show it at the epoch when it happens.

    python examples/catastrophic_overfitting.py

trains with one step of FGSM (Wong et al. 2020) on scikit-learn's digits, enlarged to 32x32. For some epochs the model
withstands PGD, too; then it learns to withstand one step and nothing else: accuracy under FGSM goes on rising, under
PGD it falls towards 0. `--training pgd` is the same with PGD, and does not collapse. `--data cifar10 --root DIR` trains
a ResNet on torchvision's CIFAR-10, where it lies in DIR; that wants a GPU.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from adversarial import cifar10
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_gradcam import FGSM, PGD, FastFGSMLoss, GradCAMCallback, PGDLoss
from lightning_gradcam.robust import AdversarialLoss


@dataclass(frozen=True)
class Setting:
    """What is trained with: images in [0, 1], a network, and how far an attack may change a pixel."""

    train: Dataset[Any]
    val: Dataset[Any]
    network: Callable[[], nn.Module]
    eps: float
    epochs: int


def of_cifar10(root: str) -> Setting:
    """As of `adversarial.py`."""
    found = cifar10(root)
    return Setting(found.train, found.val, found.network, found.eps, found.epochs)


def digits() -> Setting:
    """1,797 handwritten digits, enlarged to 32x32 pixels; every fifth one validates."""
    found = load_digits()
    small, labels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    images = F.interpolate(small, size=32, mode="bilinear").clamp(0, 1)
    held_out = torch.arange(len(images)) % 5 == 0
    train, val = (TensorDataset(images[rows], labels[rows]) for rows in (~held_out, held_out))
    return Setting(train, val, network, eps=0.2, epochs=20)


def network(width: int = 32) -> nn.Module:
    """Patches of 4x4 pixels, each looked at by three layers of its own: maps have 8x8 cells.

    In so many pixels, and behind as many layers, the loss can be bent within the ball; a network of two convolutions on
    the digits' own 8x8 pixels did not collapse.
    """
    layers: list[nn.Module] = [nn.Conv2d(1, width, 4, stride=4), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 64, 256), nn.ReLU(), nn.Linear(256, 10))


class LitFast(LightningModule):
    """A network trained with one step of FGSM; validated clean, with FGSM and with PGD."""

    def __init__(self, body: nn.Module, adversarial: AdversarialLoss, eps: float) -> None:
        super().__init__()
        self.network, self.adversarial = body, adversarial
        self.attacks = {"clean": None, "fgsm": FGSM(eps), "pgd": PGD(eps, 10)}

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """One line."""
        return self.adversarial(self, *batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Accuracy under each attack."""
        images, labels = batch
        for name, attack in self.attacks.items():
            seen = images if attack is None else attack(self, images, labels)
            self.log(f"val_acc/{name}", self(seen).argmax(1).eq(labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, whose rate stays high: nothing keeps the model from collapsing."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


class History(Callback):
    """What was logged, epoch by epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Keep the numbers of the epoch's validation."""
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def collapse(values: Sequence[float]) -> int:
    """The epoch, counted from 0, over which a curve falls the most.

    >>> collapse([0.1, 0.5, 0.6, 0.2, 0.1])
    3
    """
    falls = [before - after for before, after in pairwise(values)]
    return 1 + falls.index(max(falls))


def draw(title: str, curves: Mapping[str, Sequence[float]], when: int, path: Path) -> None:
    """Accuracies above, explanations below, and a line where the collapse is."""
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 7), layout="constrained")
    for name, values in curves.items():
        axis = below if name in ("gradcam/adv_similarity", "gradcam/adv_degenerate") else above
        axis.plot(range(len(values)), values, "--" if name.startswith("gradcam") and axis is above else "-", label=name)
    for axis in (above, below):
        axis.axvline(when, color="grey", linestyle=":")
        axis.set_ylim(0, 1)
        axis.legend()
    above.set_title(title)
    below.set_xlabel("epoch")
    below.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


SHOWN = ("val_acc/clean", "val_acc/fgsm", "val_acc/pgd", "gradcam/adv_accuracy")
EXPLAINED = ("gradcam/adv_similarity", "gradcam/adv_degenerate")


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Train, write ``catastrophic_overfitting.png``, and return the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--training", choices=("fast", "pgd"), default="fast")
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--root", default=".", help="where CIFAR-10 lies")
    parser.add_argument("--epochs", type=int, help="by default 20 for digits, 30 for CIFAR-10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("catastrophic_overfitting_runs"), help="where results go")
    chosen = parser.parse_args(arguments)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    seed_everything(chosen.seed)
    history, setting = History(), digits() if chosen.data == "digits" else of_cifar10(chosen.root)
    eps = setting.eps
    loss = FastFGSMLoss(eps, step_size=2 * eps) if chosen.training == "fast" else PGDLoss(PGD(eps, 5))
    trainer = Trainer(
        max_epochs=chosen.epochs or setting.epochs,
        logger=TensorBoardLogger(chosen.out, name=chosen.training),
        callbacks=[GradCAMCallback(probe=64, attack=PGD(eps, 20)), history],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    module = LitFast(setting.network(), loss, eps)
    trainer.fit(module, DataLoader(setting.train, 64, shuffle=True), DataLoader(setting.val, 180))
    curves = {name: [epoch[name] for epoch in history.epochs] for name in (*SHOWN, *EXPLAINED)}
    when = collapse(curves["val_acc/pgd"])
    chosen.out.mkdir(parents=True, exist_ok=True)
    draw(f"trained with {loss}", curves, when, chosen.out / "catastrophic_overfitting.png")
    print(f"{'epoch':>6}" + "".join(f"{name.partition('/')[2]:>17}" for name in curves))
    for epoch in range(len(history.epochs)):
        mark = "  <- the largest fall of accuracy under PGD" if epoch == when else ""
        print(f"{epoch:>6}" + "".join(f"{values[epoch]:>17.2f}" for values in curves.values()) + mark)
    print(f"The curves as a picture, and TensorBoard's pictures of each epoch, lie in {chosen.out}.")
    return curves


if __name__ == "__main__":
    main()
