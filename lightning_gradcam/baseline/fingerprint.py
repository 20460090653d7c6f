"""What tells models, images and surroundings from others."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

PACKAGES = ("lightning_gradcam", "torch", "torchvision", "pytorch-lightning", "lightning", "numpy")


def hash_weights(model: nn.Module) -> str:
    """The SHA-256 of all parameters and buffers with their names, whatever device they are on."""
    seen = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            values = tensor.detach().cpu().contiguous()
            seen.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
            seen.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()


def hash_pixels(pixels: Tensor) -> str:
    """The SHA-256 of images ``(N, C, *spatial)`` in steps of 1/255, so that rounding by normalisation does not count.

    >>> pixels = torch.tensor([[[[0.2, 0.4]]]])
    >>> hash_pixels(pixels) == hash_pixels((pixels - 0.3) / 0.7 * 0.7 + 0.3)
    True
    """
    steps = (pixels.detach().cpu().double() * 255).round().nan_to_num(0, 0, 0).to(torch.int64).contiguous()
    seen = hashlib.sha256(str(tuple(steps.shape)).encode())
    seen.update(steps.numpy().tobytes())
    return seen.hexdigest()


def describe_environment(model: nn.Module) -> dict[str, str]:
    """Versions, device, number format and threads: what may change the last digits of a map."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    tensor = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.empty(0))
    return {**found, "device": tensor.device.type, "dtype": str(tensor.dtype), "threads": str(torch.get_num_threads())}
