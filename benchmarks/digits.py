"""Small CNNs on scikit-learn's digits: trained, changed harmlessly, and changed in what they use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import PGD, Baseline, Normalization, PixelSpace, Probe

PIXELS = Normalization((0.485,), (0.229,))
IMAGES, EPOCHS = 128, 8
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0)


def network() -> nn.Sequential:
    """Return a CNN with three convolutions on 8x8 pixels, a mean, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Digits in [0, 1], the first 1,000 for training.

    Args:
        images: ``(1797, 1, 8, 8)``.
        labels: ``(1797,)``.
    """

    images: Tensor
    labels: Tensor

    @staticmethod
    def load() -> Data:
        """Load the digits in a fixed shuffled order."""
        digits = load_digits()
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
        images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
        return Data(images[order], torch.tensor(digits.target)[order].long())

    def train(
        self, model: nn.Sequential, seed: int, epochs: int, lr: float, change: Change | None = None
    ) -> nn.Sequential:
        """Train a model for some epochs with Adam, on batches that ``change`` may alter."""
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(1000, generator=generator), 50):
                images, labels = self.images[rows], self.labels[rows]
                images = change(model, images, labels) if change else images
                model.train()
                optimizer.zero_grad()
                loss = F.cross_entropy(model(PIXELS.normalize(images)), labels)
                torch.autograd.backward(loss)
                optimizer.step()
        return model.eval()

    def accuracy(self, model: nn.Sequential) -> float:
        """Return the accuracy on the held-out images."""
        with torch.no_grad():
            return float((model(PIXELS.normalize(self.images[1000:])).argmax(1) == self.labels[1000:]).float().mean())

    def probe(self, number: int) -> Probe:
        """Return one set of held-out images."""
        generator = torch.Generator().manual_seed(number)
        rows = 1000 + torch.randperm(797, generator=generator)[:IMAGES]
        return Probe(PIXELS.normalize(self.images[rows]), labels=self.labels[rows], pixels=PIXELS)


Change = Callable[[nn.Sequential, Tensor, Tensor], Tensor]


def trained(data: Data, seed: int, change: Change | None = None) -> nn.Sequential:
    """Train a new model."""
    torch.manual_seed(seed)
    return data.train(network(), seed, EPOCHS, 5e-3, change)


def attacked(model: nn.Sequential, images: Tensor, labels: Tensor) -> Tensor:
    """Attack a batch for adversarial training."""
    return PGD(0.1, 5)(PixelSpace(model, PIXELS), images, labels)


def with_shortcut(_model: nn.Sequential, images: Tensor, labels: Tensor) -> Tensor:
    """Add a bright spot of 2x2 pixels whose position gives the class away."""
    images = images.clone()
    for dy in (0, 1):
        for dx in (0, 1):
            images[torch.arange(len(images)), 0, 6 * (labels // 5) + dy, labels % 5 + dx] = 1
    return images


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use a number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Made = Callable[[nn.Sequential, int], nn.Sequential]


def benign(data: Data) -> dict[str, dict[str, Made]]:
    """Return changes that are not regressions, by profile."""

    def exported(model: nn.Sequential, _seed: int) -> nn.Sequential:
        twin = network()
        twin.load_state_dict(copy.deepcopy(model.state_dict()))
        return twin.eval()

    def further(model: nn.Sequential, seed: int) -> nn.Sequential:
        return data.train(copy.deepcopy(model), seed + 1000, 1, 1e-4)

    same: dict[str, Made] = {
        "the same model again": lambda model, _: model,
        "channels_last": lambda model, _: copy.deepcopy(model).to(memory_format=torch.channels_last),
        "float64": lambda model, _: copy.deepcopy(model).double(),
        "weights loaded into a new model": exported,
        "bfloat16": lambda model, _: copy.deepcopy(model).bfloat16(),
    }
    return {"same-weights": same, "next-checkpoint": {"one more epoch, lr 1e-4": further}}


def planted(data: Data, robust: list[nn.Sequential]) -> dict[str, Made]:
    """Return changes of what the model uses."""

    def noisy(strength: float) -> Made:
        def make(model: nn.Sequential, seed: int) -> nn.Sequential:
            twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in twin.parameters():
                    spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
                    parameter.add_(strength * spread * torch.randn(parameter.shape, generator=generator))
            return twin

        return make

    def reset(model: nn.Sequential, seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        twin = copy.deepcopy(model)
        twin[6], twin[7] = network()[6], nn.BatchNorm2d(32).eval()
        return twin

    def shortcut(model: nn.Sequential, seed: int) -> nn.Sequential:
        return data.train(copy.deepcopy(model), seed + 2000, EPOCHS, 5e-3, with_shortcut)

    def swapped(model: nn.Sequential, _seed: int) -> nn.Sequential:
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in twin[11].parameters():
                parameter.copy_(parameter.flip(0))
        return twin

    return {
        **{f"noise of {strength:g} on the weights": noisy(strength) for strength in NOISES},
        "last block re-initialized": reset,
        "a shortcut in the data, eight epochs": shortcut,
        "mean and std swapped": lambda model, _: nn.Sequential(Swapped(), *model),
        "class order swapped": swapped,
        "adversarially trained": lambda _, seed: robust[seed % len(robust)],
    }


class Swapped(nn.Module):
    """Normalization with mean and standard deviation swapped."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the wrongly normalized images."""
        return Normalization(PIXELS.std, PIXELS.mean).normalize(PIXELS.restore(images))


def layer_of(model: nn.Sequential) -> str:
    """Return the name of the last ReLU, which a module in front may have changed."""
    names = [str(name) for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    return names[-1]


def recorded(model: nn.Sequential, probe: Probe, like: Baseline | None = None) -> Baseline:
    """Record a baseline as a user would; a module in front of the model changes the name of its layer."""
    if like is None or layer_of(model) == next(iter(like.explanation.evidence)):
        return Baseline.record(model, probe, layers="8", like=like)
    model = Renamed(model[0], nn.Sequential(*list(model)[1:]))
    return Baseline.record(model, probe, like=like)


class Renamed(nn.Sequential):
    """A model with a module in front, whose layers keep their names."""

    def __init__(self, front: nn.Module, model: nn.Sequential) -> None:
        super().__init__(*model)
        self.before = [front]  # in a list, so that it is not a submodule

    def forward(self, images: Tensor) -> Any:
        """Run the front, then the model."""
        taken = self.before[0](images)
        for module in self:
            taken = module(taken)
        return taken
