"""A module of models and data, checkpoints, and fixtures that call the command."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from PIL import Image

from lightning_gradcam.cli import main

MODULE = '''
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from tests.helpers.lit import Bars


def body(width):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


class Net(nn.Module):
    def __init__(self, width: int = 4, act: type = nn.ReLU):
        super().__init__()
        self.features = body(width)
        self.head = nn.Linear(width * 64, 3)

    def forward(self, images):
        return self.head(self.features(images).flatten(1))


class LitNet(LightningModule):
    """Calls its child: it has no forward of its own."""

    def __init__(self, width: int, note="plain", wild=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(width)


class LitOpen(LitNet):
    """Takes whatever it is given, but not what is LightningCLI's."""

    def __init__(self, **options):
        assert not any(name.startswith("_") for name in options)
        super().__init__(**options)


def net(width: int = 4):
    return Net(width)


def no_model():
    return 3


class Broken(Net):
    def forward(self, images):
        raise KeyError("a key\\nthat is missing")


class Data(LightningDataModule):
    """Sets up for "fit" only, and shuffles."""

    def __init__(self, mean: float = 0.4, shuffle: bool = True, count: int = 80):
        super().__init__()
        self.mean, self.shuffle, self.count = mean, shuffle, count

    def setup(self, stage):
        if stage == "fit":
            self.bars = Bars(self.count, seed=3, by_class=True)
            self.bars.transform.mean = [self.mean] * 3

    def train_dataloader(self):
        return DataLoader(self.bars, 8)

    def val_dataloader(self):
        return DataLoader(self.bars, 8, shuffle=self.shuffle)


class Pictures(Bars):
    def __init__(self, count: int = 70):
        super().__init__(count)


class Words:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return index
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working directory, with a module of models and data, and their checkpoints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != ""])
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    sys.path.insert(0, "")
    import mine

    sys.path.remove("")
    torch.save(mine.Net(4).state_dict(), "one.pt")
    torch.manual_seed(9)
    torch.save(mine.Net(4).state_dict(), "other.pt")
    lit = mine.LitNet(6)
    hyper = {"width": 6, "note": "saved", "_class_path": "mine.LitNet"}
    torch.save({"state_dict": lit.state_dict(), "hyper_parameters": hyper, "epoch": 3}, "lit.ckpt")
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def call(capsys):
    """Return a function that runs the command and returns its exit code, output and errors."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        written = capsys.readouterr()
        assert "Traceback" not in written.err + written.out
        return code, written.out, written.err

    return run


NET = ("--model", "mine.Net")
RECORD = ("baseline", *NET, "--ckpt_path", "one.pt", "--data", "mine.Data", "--images", 80)


@pytest.fixture
def recorded(here, call):
    code, _, error = call(*RECORD, "--out", "b.safetensors")
    assert (code, error) == (0, "")
    return here / "b.safetensors"


@pytest.fixture
def photos(here):
    for i in range(12):
        folder = here / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (torch.rand(20 + i % 3, 18, 3) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (here / "photos" / "cat" / "notes.txt").write_text("no image")
    return here / "photos"


FOLDER = ("baseline", "--model", "mine.net", "--data", "photos/", "--size", 16)


class HostilePickle:
    def __reduce__(self):
        return os.mkdir, ("ran",)
