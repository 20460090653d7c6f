"""OKLab, a color space in which equal distances look equally different.

B. Ottosson, "A perceptual color space for image processing", 2020, https://bottosson.github.io/posts/oklab.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RGB_TO_CONES = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=torch.float64,
)
_CONES_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=torch.float64,
)


def to_oklab(colors: Tensor) -> Tensor:
    """Convert sRGB ``(..., 3)`` in [0, 1] to lightness in [0, 1] and two coordinates of hue and chroma, float64.

    >>> to_oklab(torch.tensor([1.0, 1.0, 1.0])).round(decimals=3).abs()
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    colors = colors.double()
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    return (linear @ _RGB_TO_CONES.T) ** (1 / 3) @ _CONES_TO_LAB.T


def from_oklab(lab: Tensor) -> Tensor:
    """Convert OKLab ``(..., 3)`` to sRGB; colors that a screen cannot show have values outside of [0, 1]."""
    linear = (lab.double() @ torch.linalg.inv(_CONES_TO_LAB).T) ** 3 @ torch.linalg.inv(_RGB_TO_CONES).T
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(0) ** (1 / 2.4) - 0.055)
