"""Verification: embeddings that tell if two images show the same digit, and the evidence for their similarity.

    python examples/verification.py

takes a minute on two cores. It needs scikit-learn, which includes the digits. In the figure, the first four pairs show
the same digit and the others do not; none of these images is in the training data.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradcam import CosineSimilarity, GradCAMCallback, Normalization, Probe

PIXELS = Normalization((0.3,), (0.35,))


def digits() -> tuple[Tensor, Tensor]:
    """Return all 1,797 images ``(N, 1, 32, 32)``, normalized, and their digits."""
    data = load_digits()
    small = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(small, size=(32, 32), mode="bilinear", antialias=True)
    return PIXELS.normalize(images), torch.tensor(data.target)


def pairs(images: Tensor, labels: Tensor, count: int, seed: int = 0) -> tuple[Probe, Tensor]:
    """Return pairs of the same digit, then as many of two digits; and a mask of the former."""
    generator = torch.Generator().manual_seed(seed)
    by_match: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    while min(map(len, by_match.values())) < count:
        first, second = torch.randint(len(labels), (2,), generator=generator).tolist()
        if first != second:
            by_match[bool(labels[first] == labels[second])].append((first, second))
    indices = torch.tensor([*by_match[True][:count], *by_match[False][:count]])
    same = labels[indices[:, 0]] == labels[indices[:, 1]]
    return Probe(images[indices[:, 0]], references=images[indices[:, 1]], pixels=PIXELS), same


class LitEmbeddings(LightningModule):
    """A CNN: three convolutions, and an embedding of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, 32))

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``(N, 32)``."""
        return F.normalize(self.head(self.features(images)))

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the supervised contrastive loss (arXiv:2004.11362)."""
        images, labels = batch
        embeddings = self(images)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        scores = (embeddings @ embeddings.T / 0.2).masked_fill(itself, -torch.inf).log_softmax(1)
        same = (labels[:, None] == labels) & ~itself
        loss: Tensor = -(scores.masked_fill(~same, 0).sum(1) / same.sum(1).clamp_min(1)).mean()
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], _index: int) -> None:
        """Log how well the similarity separates both kinds of pairs: the area under the ROC curve."""
        images, references, same = batch
        similarity = (self(images) * self(references)).sum(1)
        self.log("val_auc", float(roc_auc_score(same.cpu(), similarity.cpu())), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(epochs: int = 10, root: str = ".") -> Path:
    """Train, and return the path of the last figure."""
    seed_everything(0)
    images, labels = digits()
    train_mask = torch.arange(len(labels)) % 5 != 0
    validation, same = pairs(images[~train_mask], labels[~train_mask], 250)
    shown, _ = pairs(images[~train_mask], labels[~train_mask], 4, seed=2)
    explanations = GradCAMCallback(probe=shown, target=CosineSimilarity())  # the line to copy
    files = CSVLogger(root, name="lightning_logs")
    trainer = Trainer(
        max_epochs=epochs,
        logger=[TensorBoardLogger(root, version=files.version), files],
        callbacks=[explanations],
        accelerator="cpu",
        log_every_n_steps=5,
    )
    train = DataLoader(
        TensorDataset(images[train_mask], labels[train_mask]), batch_size=128, shuffle=True, drop_last=True
    )
    assert validation.references is not None
    val = DataLoader(TensorDataset(validation.images, validation.references, same), batch_size=500)
    trainer.fit(LitEmbeddings(), train, val)

    *_, path = sorted(Path(files.log_dir, "gradcam", "features").glob("*.png"))
    print(f"Area under the ROC curve: {float(trainer.callback_metrics['val_auc']):.3f}")
    print(f"Figure of both sides: {path}")
    return path


if __name__ == "__main__":
    main()
