"""Fast adversarial training that collapses, and curves that show it at the epoch when it happens.

    python examples/catastrophic_overfitting.py

trains with one step of FGSM (Wong et al. 2020) on scikit-learn's digits, enlarged to 32x32. For some epochs the model
withstands PGD, too; then it learns to withstand one step and nothing else: accuracy under FGSM goes on rising, under
PGD it falls towards 0. `--training pgd` is the same with PGD, and does not collapse.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradcam import FGSM, PGD, FastFGSMLoss, GradCAMCallback, PGDLoss
from lightning_gradcam.robust import AdversarialLoss

EPS = 0.2
EPOCHS = 20


def digits() -> tuple[TensorDataset, TensorDataset]:
    """1,797 handwritten digits, enlarged to 32x32 pixels; every fifth one validates."""
    found = load_digits()
    small, labels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    images = F.interpolate(small, size=32, mode="bilinear").clamp(0, 1)
    held_out = torch.arange(len(images)) % 5 == 0
    train, val = (TensorDataset(images[rows], labels[rows]) for rows in (~held_out, held_out))
    return train, val


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

    def __init__(self, adversarial: AdversarialLoss) -> None:
        super().__init__()
        self.network, self.adversarial = network(), adversarial
        self.attacks = {"clean": None, "fgsm": FGSM(EPS), "pgd": PGD(EPS, 10)}

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
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("catastrophic_overfitting_runs"), help="where results go")
    chosen = parser.parse_args(arguments)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    seed_everything(chosen.seed)
    history, (train, val) = History(), digits()
    loss = FastFGSMLoss(EPS, step_size=2 * EPS) if chosen.training == "fast" else PGDLoss(PGD(EPS, 5))
    trainer = Trainer(
        max_epochs=chosen.epochs,
        logger=TensorBoardLogger(chosen.out, name=chosen.training),
        callbacks=[GradCAMCallback(probe=64, attack=PGD(EPS, 20)), history],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    trainer.fit(LitFast(loss), DataLoader(train, 64, shuffle=True), DataLoader(val, 180))
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
