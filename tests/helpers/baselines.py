"""Small baselines and their files."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save as save_tensors
from torch import nn

from lightning_gradcam import Baseline, Normalization, Probe
from lightning_gradcam.baseline import storage
from tests.helpers.lit import Bars, Lit

NORM = Normalization((0.4, 0.4, 0.4), (0.25, 0.25, 0.25))


def bars(count=70, seed=0):
    data = Bars(count, seed)
    return Probe(torch.stack([data[i][0] for i in range(count)]), labels=data.labels, pixels=NORM)


def trained(seed=0, steps=30, model=None):
    """Return a model trained for a few steps."""
    torch.manual_seed(seed)
    model = (model or Lit()).train()
    optimizer, probe = torch.optim.Adam(model.parameters(), 1e-2), bars(48, seed + 1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(probe.images), probe.labels).backward()
        optimizer.step()
    return model.eval()


def record_small(seed=0, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))
    return Baseline.record(model, (torch.rand(3, 1, 4, 4), torch.arange(3)), **options)


def save_and_read(baseline, folder):
    baseline.save(folder / "whole.safetensors")
    return (folder / "whole.safetensors").read_bytes()


def encode_file(tensors, about, version="1", checksum=True):
    """Return the content of a baseline file, with a matching checksum or none."""
    text = about if isinstance(about, str) else json.dumps(about)
    metadata = {"kind": storage.KIND, "version": version, "about": text}
    if checksum:
        metadata["sha256"] = storage._compute_checksum(tensors, int(version) if len(version) < 9 else 1, text)
    return save_tensors(tensors, metadata)
