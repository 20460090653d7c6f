"""Overlay of one image with its evidence, for use outside of training."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_gradcam.probe.image_loading import ImageLike, to_pixels
from lightning_gradcam.render.colors import STRENGTH, ColorTable, blend_heatmaps, to_gray
from lightning_gradcam.render.photos import to_rgb
from lightning_gradcam.utils.interpolation import resize


@overload
def overlay(
    image: Tensor,
    heatmap: Tensor | np.ndarray[Any, Any],
    alpha: float = ...,
    colormap: str = ...,
    as_pil: Literal[False] = ...,
) -> Tensor: ...
@overload
def overlay(
    image: ImageLike,
    heatmap: Tensor | np.ndarray[Any, Any],
    alpha: float = ...,
    colormap: str = ...,
    *,
    as_pil: Literal[True],
) -> Image.Image: ...
@overload
def overlay(
    image: ImageLike,
    heatmap: Tensor | np.ndarray[Any, Any],
    alpha: float = ...,
    colormap: str = ...,
    as_pil: bool = ...,
) -> Any: ...
@torch.no_grad()
def overlay(
    image: ImageLike,
    heatmap: Tensor | np.ndarray[Any, Any],
    alpha: float = STRENGTH,
    colormap: str = "inferno",
    as_pil: bool = False,
) -> Any:
    """Draw a heatmap over an image, in the colors of this package's figures.

    The image becomes gray, so that color means evidence and nothing else. Evidence adds the same color to dark and to
    bright pixels, so that it looks the same on both, and the object stays visible under it.

    Args:
        image: A tensor ``(C, H, W)`` or an array ``(H, W, C)`` or ``(H, W)``, of uint8 or of floats in [0, 1]; a PIL
            image; or the path of a file.
        heatmap: ``(h, w)`` in [0, 1], as `Explanation.heatmaps` returns it, resized to the image.
        alpha: The strength of the color of the most evidence, from 0 (invisible) to 1.
        colormap: A matplotlib colormap.
        as_pil: Whether to return a PIL image.

    Returns:
        uint8: for a tensor, a tensor ``(3, H, W)`` on its device; otherwise an array ``(H, W, 3)``; or a PIL image.

    Raises:
        TypeError: The image or the heatmap has an unsupported type.
        ValueError: A value is out of range, a shape does not fit, or matplotlib does not have the colormap.

    Example:
        >>> blended = overlay(np.full((4, 6, 3), 255, np.uint8), np.array([[0.0, 1.0]]))
        >>> gray, yellow = blended[0, 0], blended[0, 5]  # without evidence, and with the most
        >>> blended.shape, bool(gray[0] == gray[1] == gray[2]), bool(yellow[2] < yellow[:2].min())
        ((4, 6, 3), True, True)
    """
    if not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise ValueError(f"Expected `alpha` from 0 to 1, but got {alpha!r}.")
    pixels = to_pixels(image).float()
    if pixels.ndim != 3:
        raise ValueError(f"Expected `image` to be one image (C, H, W), but got {tuple(pixels.shape)}.")
    color_table = ColorTable.from_colormap(colormap, pixels.device, alpha)
    blended = blend_heatmaps(to_gray(to_rgb(pixels[None])), _prepare_heatmap(heatmap, pixels), color_table)[0]
    if isinstance(image, Tensor) and not as_pil:
        return blended
    array = blended.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array) if as_pil else np.ascontiguousarray(array)


def _prepare_heatmap(heatmap: Tensor | np.ndarray[Any, Any], pixels: Tensor) -> Tensor:
    """Validate a heatmap and resize it to pixels ``(C, H, W)``: ``(1, H, W)`` in [0, 1]."""
    if not isinstance(heatmap, (Tensor, np.ndarray)):
        raise TypeError(f"Expected `heatmap` to be a tensor or an array, but got {type(heatmap).__name__}.")
    heat = torch.as_tensor(heatmap, device=pixels.device).float()
    if heat.ndim != 2:
        raise ValueError(f"Expected `heatmap` of shape (h, w), for one image, but got {tuple(heat.shape)}.")
    low, high = torch.stack(heat.aminmax()).tolist()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"Expected `heatmap` in [0, 1], as `heatmaps()` returns it, but got {low:.3g} to {high:.3g}.")
    size = (pixels.shape[1], pixels.shape[2])
    return heat[None] if tuple(heat.shape) == size else resize(heat[None], size)
