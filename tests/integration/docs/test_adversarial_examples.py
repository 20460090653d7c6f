"""The examples of adversarial training run, and the collapse is where the curves show it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torchvision.datasets import CIFAR10

EXAMPLES = Path(__file__).parents[3] / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),  # Lightning's
]


@pytest.fixture(autouse=True)
def _import_examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # in which dataclasses look up their types
    spec.loader.exec_module(module)
    return module


def test_adversarial_writes_table_and_figure(tmp_path):
    rows = example("adversarial").main(["--epochs=2", f"--out={tmp_path}"])
    assert [row.training for row in rows] == ["natural", "PGD", "TRADES", "consistency"]
    assert all(0 <= value <= 1 for row in rows for value in (row.clean, row.pgd20, row.held, row.degenerate))
    assert all(row.pgd20 <= row.clean for row in rows)
    assert json.loads((tmp_path / "adversarial.json").read_text("utf-8"))[3]["training"] == "consistency"
    assert (tmp_path / "adversarial.md").read_text("utf-8").count("\n") == 6
    assert (tmp_path / "adversarial.png").stat().st_size > 10_000
    assert list(tmp_path.rglob("events*"))


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Write a CIFAR-10 of twenty images in torchvision's file format, and use a small network."""
    folder, names = tmp_path / "data" / CIFAR10.base_folder, [name.decode() for name in CLASSES]
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for files, count in ((CIFAR10.train_list, 2), (CIFAR10.test_list, 10)):
        for name, _ in files:
            pixels = torch.randint(0, 256, (count, 3 * 32 * 32), dtype=torch.uint8, generator=generator).numpy()
            (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": list(range(count))}))
    (folder / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": names}))

    def checksum(name):
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for files in ("train_list", "test_list"):  # torchvision compares checksums with those of the real files
        monkeypatch.setattr(CIFAR10, files, [[name, checksum(name)] for name, _ in getattr(CIFAR10, files)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": checksum(CIFAR10.meta["filename"])})
    small = [torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 64, 10)]
    monkeypatch.setattr(example("adversarial"), "residual_net", lambda: torch.nn.Sequential(*small))
    return folder.parent


CLASSES = b"airplane automobile bird cat deer dog frog horse ship truck".split()


def test_adversarial_trains_on_cifar10(cifar10, tmp_path):
    arguments = ["--data=cifar10", f"--root={cifar10}", "--epochs=1", f"--out={tmp_path / 'out'}"]
    rows = sys.modules["adversarial"].main(arguments)
    assert [row.training for row in rows] == ["natural", "PGD", "TRADES", "consistency"]
    assert (tmp_path / "out" / "adversarial.png").stat().st_size > 10_000


def test_catastrophic_overfitting_trains_on_cifar10(cifar10, tmp_path):
    arguments = ["--data=cifar10", f"--root={cifar10}", "--epochs=2", f"--out={tmp_path / 'out'}"]
    curves = example("catastrophic_overfitting").main(arguments)
    assert {len(values) for values in curves.values()} == {2}
    assert "gradcam/adv_similarity" in curves


@pytest.mark.parametrize("name", ["adversarial", "catastrophic_overfitting"])
def test_missing_cifar10_raises(name, tmp_path):
    with pytest.raises(SystemExit, match=r"Expected CIFAR-10 in .*download=True"):
        example(name).main(["--data=cifar10", f"--root={tmp_path}", f"--out={tmp_path}"])


@pytest.mark.filterwarnings("ignore:GradCAMCallback.*suddenly differ")  # as they may, in a collapse
def test_curves_of_the_callback_show_the_collapse(tmp_path):
    catastrophe = example("catastrophic_overfitting")
    curves = catastrophe.main([f"--out={tmp_path}"])
    fgsm, pgd, probe = (curves[name] for name in ("val_acc/fgsm", "val_acc/pgd", "gradcam/adv_accuracy"))
    assert max(pgd) > 0.2
    assert pgd[-1] < 0.1
    assert fgsm[-1] > 0.75
    assert all(abs(a - b) < 0.2 for a, b in zip(pgd, probe, strict=True))  # 64 images, and 20 steps instead of 10
    assert abs(catastrophe.collapse(probe) - catastrophe.collapse(pgd)) <= 1
    assert (tmp_path / "catastrophic_overfitting.png").stat().st_size > 10_000
