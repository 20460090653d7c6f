"""Fingerprints of models, images and the environment."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

PACKAGES = ("lightning_gradcam", "torch", "torchvision", "pytorch-lightning", "lightning", "numpy")


def hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers with their names, independent of their device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_pixels(pixels: Tensor) -> str:
    """Return the SHA-256 of images ``(N, C, *spatial)``, rounded to 1/255 to ignore errors of normalization.

    >>> pixels = torch.tensor([[[[0.2, 0.4]]]])
    >>> hash_pixels(pixels) == hash_pixels((pixels - 0.3) / 0.7 * 0.7 + 0.3)
    True
    """
    steps = (pixels.detach().cpu().double() * 255).round().nan_to_num(0, 0, 0).to(torch.int64).contiguous()
    digest = hashlib.sha256(str(tuple(steps.shape)).encode())
    digest.update(steps.numpy().tobytes())
    return digest.hexdigest()


def describe_environment(model: nn.Module) -> dict[str, str]:
    """Return versions, device, dtype and threads: what may change the last digits of a map."""
    facts = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    tensor = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.empty(0))
    return {**facts, "device": tensor.device.type, "dtype": str(tensor.dtype), "threads": str(torch.get_num_threads())}
