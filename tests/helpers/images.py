"""An image in every supported type."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

BYTES = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)


def forms(folder, array=BYTES):
    """The same image in every form that pixels come in."""
    picture = Image.fromarray(array.squeeze())
    picture.save(folder / "image.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    return {
        "uint8 array": array,
        "float array": array.astype(np.float32) / 255,
        "float64 array": array / 255,
        "array of a batch": array[None],
        "list": [array],
        "PIL": picture,
        "list of PIL": [picture],
        "file": str(folder / "image.png"),
        "path": folder / "image.png",
        "uint8 tensor": tensor,
        "float tensor": tensor / 255,
        "batch": tensor[None] / 255,
        "list of tensors": [tensor / 255],
    }
