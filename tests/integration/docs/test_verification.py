"""The verification example runs and writes its figure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageStat

FILE = Path(__file__).parents[3] / "examples" / "verification.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # TensorBoard writes there, too
def test_verification_separates_pairs_and_shows_both_sides(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("verification", FILE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    images, labels = example.digits()
    probe, same = example.pairs(images, labels, 5)
    assert same.tolist() == [True] * 5 + [False] * 5
    assert not any(
        torch.equal(image, reference) for image, reference in zip(probe.images, probe.references, strict=True)
    )
    with Image.open(example.main(epochs=1, root=str(tmp_path))) as picture:
        assert min(ImageStat.Stat(picture.convert("RGB")).stddev) > 10
    assert float(capsys.readouterr().out.split("ROC curve: ")[1].split()[0]) > 0.9  # after a single epoch
