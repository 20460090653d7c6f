"""The examples of adversarial training run, and the collapse is where the curves say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),  # Lightning's
]


@pytest.fixture(autouse=True)
def _beside_one_another(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their types
    spec.loader.exec_module(module)
    return module


def test_one_table_and_one_picture(tmp_path):
    rows = example("adversarial").main(["--epochs=2", f"--out={tmp_path}"])
    assert [row.training for row in rows] == ["natural", "PGD", "TRADES", "consistency"]
    assert all(0 <= value <= 1 for row in rows for value in (row.clean, row.pgd20, row.held, row.degenerate))
    assert all(row.pgd20 <= row.clean for row in rows)
    assert json.loads((tmp_path / "adversarial.json").read_text("utf-8"))[3]["training"] == "consistency"
    assert (tmp_path / "adversarial.md").read_text("utf-8").count("\n") == 6
    assert (tmp_path / "adversarial.png").stat().st_size > 10_000
    assert list(tmp_path.rglob("events*"))


def test_cifar10_is_trained_likewise(tmp_path, monkeypatch):
    adversarial = example("adversarial")
    generator = torch.Generator().manual_seed(0)

    class Few(torch.utils.data.Dataset):
        """In CIFAR10's place: its images and labels are of these kinds, and there are 50,000 of them."""

        def __init__(self, root, train, transform):
            assert root == "somewhere"
            self.transform = transform

        def __len__(self):
            return 12

        def __getitem__(self, index):
            pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)
            return self.transform(adversarial.v2.functional.to_pil_image(pixels)), index % 10

    monkeypatch.setattr(adversarial, "CIFAR10", Few)
    arguments = ["--data=cifar10", "--root=somewhere", "--epochs=1", f"--out={tmp_path}"]
    assert len(adversarial.main(arguments)) == 4


def test_the_collapse_shows_in_the_callbacks_curves(tmp_path):
    catastrophe = example("catastrophic_overfitting")
    curves = catastrophe.main([f"--out={tmp_path}"])
    fgsm, pgd, seen = (curves[name] for name in ("val_acc/fgsm", "val_acc/pgd", "gradcam/adv_accuracy"))
    assert max(pgd) > 0.2
    assert pgd[-1] < 0.1
    assert fgsm[-1] > 0.75
    assert all(abs(a - b) < 0.2 for a, b in zip(pgd, seen, strict=True))  # of 64 images, and of 20 steps instead of 10
    assert abs(catastrophe.collapse(seen) - catastrophe.collapse(pgd)) <= 1
    assert (tmp_path / "catastrophic_overfitting.png").stat().st_size > 10_000
