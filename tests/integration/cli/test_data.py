"""Images from datamodules and folders."""

from __future__ import annotations

import torch

from lightning_gradcam import Baseline, Normalization
from tests.integration.cli.conftest import FOLDER, NET, RECORD


def test_data_is_read_in_order_with_its_normalization(recorded, call):
    assert call(*RECORD, "--data.shuffle", "false", "--out", "c.safetensors")[0] == 0
    one, other = Baseline.load("b.safetensors"), Baseline.load("c.safetensors")
    assert torch.equal(one.images, other.images)
    assert one.metadata.normalization == Normalization((0.4,) * 3, (0.25,) * 3)
    assert call(*RECORD[:-1], 8, "--out", "d.safetensors")[0] == 0
    assert set(Baseline.load("d.safetensors").labels.tolist()) == {0, 1, 2}  # though they come class by class


def test_normalization_regresses_and_images_are_incompatible(recorded, call):
    same = ("compare", "b.safetensors", *NET, "--ckpt_path", "one.pt")
    code, text, _ = call(*same, "--data", "mine.Data", "--data.mean", 0.9)
    assert code == 1
    assert "normalization" in text
    std = ("--std", 0.25, 0.25, 0.25)
    assert call(*same, "--mean", 0.9, 0.9, 0.9, *std)[0] == 1
    assert call(*same, "--mean", 0.4, 0.4, 0.4, *std)[0] == 0
    code, text, _ = call(*same, "--data", "mine.Pictures", "--data.count", 80)
    assert code == 4
    assert "different images" in text


def test_hash_requires_the_data_to_compare(here, call):
    assert call(*RECORD, "--store", "hash", "--out", "h.safetensors")[0] == 0
    same = ("compare", "h.safetensors", *NET, "--ckpt_path", "one.pt")
    code, _, error = call(*same)
    assert code == 2
    assert "Pass the same images with --data" in error
    assert call(*same, "--data", "mine.Data")[0] == 0
    assert call(*same, "--data", "mine.Data", "--data.count", 79)[0] == 4


def test_image_folder_and_model_function(photos, call):
    norm = ("--mean", 0.5, 0.5, 0.5, "--std", 0.2, 0.2, 0.2)
    assert call(*FOLDER, *norm, "--images", 10, "--out", "f.safetensors")[0] == 0
    found = Baseline.load("f.safetensors")
    assert found.labels.tolist() == [0, 1] * 5
    assert found.images.shape == (10, 3, 16, 16)
    assert found.metadata.normalization == Normalization((0.5,) * 3, (0.2,) * 3)
    assert 0 <= found.images.min() < found.images.max() <= 1.0001
    assert call("compare", "f.safetensors", "--model", "mine.net", "--device", "cpu")[0] == 0
    assert call(*FOLDER[:4], "photos/dog", *FOLDER[5:-1], 16, 16, "--out", "g.safetensors")[0] == 0
    assert Baseline.load("g.safetensors").labels is None
