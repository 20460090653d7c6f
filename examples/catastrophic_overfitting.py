"""Fast adversarial training that collapses, and curves that show the epoch in which it happens.

    python examples/catastrophic_overfitting.py

trains with one step of FGSM (Wong et al. 2020) on scikit-learn's digits, enlarged to 32x32. For some epochs the model
withstands PGD, too; then it learns to withstand one step and nothing else: accuracy under FGSM keeps rising, and under
PGD it falls towards 0. `--training pgd` trains with PGD, and does not collapse. `--data cifar10 --root DIR` trains a
ResNet on torchvision's CIFAR-10 in DIR, which needs a GPU.
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
    """A data set with images in [0, 1], a network, and the radius of the attack."""

    train: Dataset[Any]
    val: Dataset[Any]
    network: Callable[[], nn.Module]
    eps: float
    epochs: int


def load_cifar10(root: str) -> Setting:
    """Return the setting of CIFAR-10 in `adversarial.py`."""
    setting = cifar10(root)
    return Setting(setting.train, setting.val, setting.network, setting.eps, setting.epochs)


def digits() -> Setting:
    """Return the setting of 1,797 digits, enlarged to 32x32 pixels; every fifth one is for validation."""
    data = load_digits()
    small, labels = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    images = F.interpolate(small, size=32, mode="bilinear").clamp(0, 1)
    held_out = torch.arange(len(images)) % 5 == 0
    train, val = (TensorDataset(images[rows], labels[rows]) for rows in (~held_out, held_out))
    return Setting(train, val, network, eps=0.2, epochs=20)


def network(width: int = 32) -> nn.Module:
    """Return a network of three layers on separate patches of 4x4 pixels, so that maps have 8x8 cells.

    With this many pixels and layers, the loss can curve within the norm ball; a network of two convolutions on the
    original 8x8 pixels did not collapse.
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
        """Return the logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the adversarial loss."""
        return self.adversarial(self, *batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Log accuracy under each attack."""
        images, labels = batch
        for name, attack in self.attacks.items():
            inputs = images if attack is None else attack(self, images, labels)
            self.log(f"val_acc/{name}", self(inputs).argmax(1).eq(labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with a constant, high rate, so that nothing prevents the collapse."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


class History(Callback):
    """Records the logged values of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Record the values of the epoch."""
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def collapse(values: Sequence[float]) -> int:
    """Return the epoch, from 0, in which a curve falls the most.

    >>> collapse([0.1, 0.5, 0.6, 0.2, 0.1])
    3
    """
    falls = [previous - current for previous, current in pairwise(values)]
    return 1 + falls.index(max(falls))


def draw(title: str, curves: Mapping[str, Sequence[float]], when: int, path: Path) -> None:
    """Draw accuracies at the top, explanations at the bottom, and a line at the collapse."""
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(9, 7), layout="constrained")
    for name, values in curves.items():
        axis = bottom if name in ("gradcam/adv_similarity", "gradcam/adv_degenerate") else top
        axis.plot(range(len(values)), values, "--" if name.startswith("gradcam") and axis is top else "-", label=name)
    for axis in (top, bottom):
        axis.axvline(when, color="gray", linestyle=":")
        axis.set_ylim(0, 1)
        axis.legend()
    top.set_title(title)
    bottom.set_xlabel("epoch")
    bottom.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


SHOWN = ("val_acc/clean", "val_acc/fgsm", "val_acc/pgd", "gradcam/adv_accuracy")
EXPLAINED = ("gradcam/adv_similarity", "gradcam/adv_degenerate")


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Train, write ``catastrophic_overfitting.png``, and return the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--training", choices=("fast", "pgd"), default="fast")
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--root", default=".", help="folder of CIFAR-10")
    parser.add_argument("--epochs", type=int, help="default: 20 for digits, 30 for CIFAR-10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("catastrophic_overfitting_runs"), help="folder of the results")
    options = parser.parse_args(arguments)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    seed_everything(options.seed)
    history, setting = History(), digits() if options.data == "digits" else load_cifar10(options.root)
    eps = setting.eps
    loss = FastFGSMLoss(eps, step_size=2 * eps) if options.training == "fast" else PGDLoss(PGD(eps, 5))
    trainer = Trainer(
        max_epochs=options.epochs or setting.epochs,
        logger=TensorBoardLogger(options.out, name=options.training),
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
    options.out.mkdir(parents=True, exist_ok=True)
    draw(f"trained with {loss}", curves, when, options.out / "catastrophic_overfitting.png")
    print(f"{'epoch':>6}" + "".join(f"{name.partition('/')[2]:>17}" for name in curves))
    for epoch in range(len(history.epochs)):
        mark = "  <- largest drop of accuracy under PGD" if epoch == when else ""
        print(f"{epoch:>6}" + "".join(f"{values[epoch]:>17.2f}" for values in curves.values()) + mark)
    print(f"A figure of the curves, and TensorBoard logs of each epoch, are in {options.out}.")
    return curves


if __name__ == "__main__":
    main()
