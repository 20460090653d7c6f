"""Normalization and class names in datasets and datamodules."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms as v1
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from lightning_gradcam import Normalization
from lightning_gradcam.probe.dataset_info import (
    find_class_names,
    find_datasets,
    find_model_normalization,
    find_normalization,
)

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
PIXELS = Normalization(tuple(MEAN), tuple(STD))


class Data(Dataset):
    """Whose images nobody may read, and whose property nobody may call."""

    def __init__(self, **attributes) -> None:
        self.__dict__.update(attributes)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise AssertionError("an item was read, which could draw random numbers")

    @property
    def norm(self):
        raise AssertionError("a property was called")


class Module:
    """In the place of a datamodule."""

    def __init__(self, **attributes) -> None:
        self.__dict__.update(attributes)


HOLDERS = {
    "v1": lambda: Data(transform=v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)])),
    "v2": lambda: Data(transform=v2.Compose([v2.ToImage(), v2.Normalize(MEAN, STD)])),
    "alone": lambda: Data(transform=v2.Normalize(MEAN, STD)),
    "tensors": lambda: Data(transform=v1.Normalize(torch.tensor(MEAN), torch.tensor(STD))),
    "sequential": lambda: Data(preprocess=nn.Sequential(nn.Identity(), v2.Normalize(MEAN, STD))),
    "nested": lambda: Data(transforms=v2.Compose([v2.Compose([v2.RandomApply([v2.Normalize(MEAN, STD)])])])),
    "subset": lambda: Subset(HOLDERS["v1"](), [0, 2]),
    "subset of a subset": lambda: Subset(HOLDERS["subset"](), [1]),
    "concatenated": lambda: ConcatDataset([Data(transform=v1.ToTensor()), HOLDERS["v2"]()]),
    "split of a concatenation": lambda: Module(train=Subset(ConcatDataset([HOLDERS["subset"]()]), [0])),
    "datamodule": lambda: Module(val_transforms=v2.Compose([v2.Normalize(MEAN, STD)])),
    "datamodule's normalize": lambda: Module(batch_size=3, normalize=v2.Normalize(MEAN, STD)),
    "datamodule's dataset": lambda: Module(val_set=HOLDERS["subset"]()),
    "datamodule's loader": lambda: Module(loader=DataLoader(HOLDERS["v1"]())),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_find_normalization_in_datasets_and_datamodules(name):
    pixels, where = find_normalization([TensorDataset(torch.zeros(3)), HOLDERS[name]()])
    assert pixels is not None
    torch.testing.assert_close(torch.tensor([pixels.mean, pixels.std]), torch.tensor([MEAN, STD]))
    assert where.split(".")[0] in ("Data", "Subset", "ConcatDataset", "Module")


class ImageProcessor:
    """As transformers has them."""

    def __init__(self, **settings) -> None:
        self.__dict__.update({"image_mean": MEAN, "image_std": STD, "do_normalize": True, **settings})


class RandomGaussianNoise(nn.Module):
    """An augmentation of kornia that has a mean and a std, too."""

    flags = None

    def __init__(self) -> None:
        super().__init__()
        self.flags = {"mean": torch.tensor([0.0]), "std": torch.tensor([0.1])}


class Normalize(nn.Module):
    """Kornia's: an augmentation keeps its values in `flags`, the function in buffers."""

    def __init__(self, is_augmentation: bool) -> None:
        super().__init__()
        if is_augmentation:
            self.flags = {"mean": torch.tensor([MEAN]), "std": torch.tensor([STD])}
        else:
            self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1))


FURTHER = {
    "kornia in datamodule.aug": lambda: Module(aug=nn.Sequential(RandomGaussianNoise(), Normalize(True))),
    "kornia in datamodule.val_aug": lambda: Module(val_aug=nn.Sequential(nn.Sequential(Normalize(False)))),
    "an image processor": lambda: Module(image_processor=ImageProcessor()),
    "a feature extractor of a dataset": lambda: Data(feature_extractor=ImageProcessor()),
    "torchvision's preset": lambda: Data(transform=ImageClassification(crop_size=8, mean=MEAN, std=STD)),
}


@pytest.mark.parametrize("name", FURTHER)
def test_find_normalization_of_other_libraries(name):
    pixels, where = find_normalization([FURTHER[name]()])
    assert pixels is not None
    torch.testing.assert_close(torch.tensor([pixels.mean, pixels.std]), torch.tensor([MEAN, STD]))
    assert "." in where


def test_find_normalization_ignores_what_does_not_normalize():
    for holder in (Module(aug=RandomGaussianNoise()), Module(processor=ImageProcessor(do_normalize=False))):
        assert find_normalization([holder]) == (None, "")


@pytest.mark.parametrize("as_mapping", [True, False])
def test_model_normalization_counts_only_if_it_fits(as_mapping):
    config = {"mean": tuple(MEAN), "std": tuple(STD), "url": ""}
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model[0].pretrained_cfg = config if as_mapping else SimpleNamespace(**config)
    pixels = torch.rand(2, 3, 4, 4)
    assert find_model_normalization(model, PIXELS.normalize(pixels)) == (PIXELS, "Sequential.0.pretrained_cfg")
    for other in (pixels, 9 * pixels - 4, 255 * pixels):
        assert find_model_normalization(model, other) == (None, "")


def test_find_normalization_returns_first_or_none():
    first, second = HOLDERS["v1"](), Data(transform=v1.Normalize([0.9], [0.9]))
    assert find_normalization([first, second]) == (PIXELS, "Data.transform")
    assert find_normalization([second, first])[0] == Normalization((0.9,), (0.9,))
    assert find_normalization([Data(transform=v1.ToTensor()), Module(a=1)]) == (None, "")
    assert find_normalization([]) == (None, "")
    looped = Data()
    looped.transform = [looped, v1.Normalize(MEAN, STD)]
    assert find_normalization([looped])[0] == PIXELS


def test_find_class_names_in_datasets_and_datamodules():
    names = ["cat", "dog"]
    inherited = type("Animals", (Data,), {"classes": tuple(names)})
    for holder, where in [
        (Data(classes=names), "Data.classes"),
        (inherited(), "Animals.classes"),
        (Subset(Data(classes=names), [0]), "Subset.dataset.classes"),
        (Module(class_names=names), "Module.class_names"),
    ]:
        assert find_class_names([Module(classes=3), holder]) == (names, where)
    assert find_class_names([Module(classes=[1, 2]), Data(classes=[])]) == (None, "")


def test_find_datasets_of_loaders():
    a, b = Data(), Data()
    one, two = DataLoader(a), DataLoader(b)
    for loaders in ([one, two], (one, [two]), {"x": one, "y": two}, CombinedLoader({"x": one, "y": [two]})):
        assert find_datasets(loaders) == [a, b]
    assert find_datasets(one) == [a]
    assert find_datasets(None) == []
