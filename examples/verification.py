"""Are these two the same digit? Embeddings that are trained to tell, and what in both images makes them alike.

    python examples/verification.py

needs scikit-learn, whose digits are bundled, and takes a minute on two cores. In the picture, the first four pairs are
of the same digit, the others are not; none of these images was trained on.
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
    """All 1,797 images ``(N, 1, 32, 32)``, normalised, and which digit each is."""
    data = load_digits()
    small = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(small, size=(32, 32), mode="bilinear", antialias=True)
    return PIXELS.normalize(images), torch.tensor(data.target)


def pairs(images: Tensor, labels: Tensor, count: int, seed: int = 0) -> tuple[Probe, Tensor]:
    """Pairs of images, first those of the same digit, then as many of two digits; and whether they are the same."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    while min(map(len, found.values())) < count:
        one, other = torch.randint(len(labels), (2,), generator=generator).tolist()
        if one != other:
            found[bool(labels[one] == labels[other])].append((one, other))
    chosen = torch.tensor([*found[True][:count], *found[False][:count]])
    same = labels[chosen[:, 0]] == labels[chosen[:, 1]]
    return Probe(images[chosen[:, 0]], references=images[chosen[:, 1]], pixels=PIXELS), same


class LitEmbeddings(LightningModule):
    """Three convolutions, and what is left of the places as an embedding of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, 32))

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, 32)``."""
        return F.normalize(self.head(self.features(images)))

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Each image is to find those of its digit among all of the batch (supervised contrastive, 2004.11362)."""
        images, labels = batch
        embeddings = self(images)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        found = (embeddings @ embeddings.T / 0.2).masked_fill(itself, -torch.inf).log_softmax(1)
        same = (labels[:, None] == labels) & ~itself
        loss: Tensor = -(found.masked_fill(~same, 0).sum(1) / same.sum(1).clamp_min(1)).mean()
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], _index: int) -> None:
        """How well the similarity tells pairs of the same digit from others: the area under the ROC curve."""
        one, other, same = batch
        similarity = (self(one) * self(other)).sum(1)
        self.log("val_auc", float(roc_auc_score(same.cpu(), similarity.cpu())), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(epochs: int = 10, root: str = ".") -> Path:
    """Train, and return where the last look's picture lies."""
    seed_everything(0)
    images, labels = digits()
    known = torch.arange(len(labels)) % 5 != 0
    asked, same = pairs(images[~known], labels[~known], 250)
    shown, _ = pairs(images[~known], labels[~known], 4, seed=2)
    explanations = GradCAMCallback(probe=shown, target=CosineSimilarity())  # the line to copy
    files = CSVLogger(root, name="lightning_logs")
    trainer = Trainer(
        max_epochs=epochs,
        logger=[TensorBoardLogger(root, version=files.version), files],
        callbacks=[explanations],
        accelerator="cpu",
        log_every_n_steps=5,
    )
    train = DataLoader(TensorDataset(images[known], labels[known]), batch_size=128, shuffle=True, drop_last=True)
    assert asked.references is not None
    val = DataLoader(TensorDataset(asked.images, asked.references, same), batch_size=500)
    trainer.fit(LitEmbeddings(), train, val)

    *_, picture = sorted(Path(files.log_dir, "gradcam", "features").glob("*.png"))
    print(f"Area under the ROC curve: {float(trainer.callback_metrics['val_auc']):.3f}")
    print(f"Both sides explained: {picture}")
    return picture


if __name__ == "__main__":
    main()
