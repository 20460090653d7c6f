"""One image with its evidence, for those who want a picture outside of training."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_gradcam.probe.image_loading import ImageLike, to_pixels
from lightning_gradcam.render import colors
from lightning_gradcam.render.colors import ColorTable, to_gray
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
    alpha: float = 0.8,
    colormap: str = "inferno",
    as_pil: bool = False,
) -> Any:
    """Lay evidence over an image, in the colours of this package's pictures.

    The image becomes grey, so that colour means evidence and nothing else; the more evidence, the more opaque its
    colour, which takes its shade from the image, so that the object stays visible.

    Args:
        image: A tensor ``(C, H, W)``, an array ``(H, W, C)`` or ``(H, W)``, both uint8, or floats in [0, 1]; a PIL
            image; or the name of a file.
        heatmap: ``(h, w)`` in [0, 1], as `Explanation.heatmaps` has them; of another size, it is enlarged.
        alpha: How opaque the most evidence is, from 0, which shows none, to 1.
        colormap: A matplotlib colormap.
        as_pil: Whether a PIL image is returned.

    Returns:
        uint8: for a tensor one of ``(3, H, W)`` on its device, else an array ``(H, W, 3)``; or a PIL image.

    Raises:
        TypeError: The image, or the heatmap, is of no known kind.
        ValueError: A number is out of its range, a shape is another, or matplotlib knows no such colormap.

    Example:
        >>> drawn = overlay(np.full((4, 6, 3), 255, np.uint8), np.array([[0.0, 1.0]]))
        >>> drawn.shape, drawn[0, 0].tolist(), drawn[0, 5].tolist()
        ((4, 6, 3), [217, 217, 217], [255, 255, 185])
    """
    if not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise ValueError(f"Expected `alpha` from 0 to 1, but got {alpha!r}.")
    pixels = to_pixels(image).float()
    if pixels.ndim != 3:
        raise ValueError(f"Expected one image (C, H, W), but got {tuple(pixels.shape)}.")
    heat = _heat(heatmap, pixels)
    drawn = colors.lay_over(to_gray(to_rgb(pixels[None])), heat, ColorTable.named(colormap, pixels.device, alpha))[0]
    if isinstance(image, Tensor) and not as_pil:
        return drawn
    array = drawn.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array) if as_pil else np.ascontiguousarray(array)


def _heat(heatmap: Tensor | np.ndarray[Any, Any], pixels: Tensor) -> Tensor:
    """``(1, H, W)`` in [0, 1], at the size of the pixels ``(C, H, W)``."""
    if not isinstance(heatmap, (Tensor, np.ndarray)):
        raise TypeError(f"Expected a heatmap as a tensor or an array, but got {type(heatmap).__name__}.")
    heat = torch.as_tensor(heatmap, device=pixels.device).float()
    if heat.ndim != 2:
        raise ValueError(f"Expected a heatmap (h, w) of one image, but got {tuple(heat.shape)}.")
    low, high = torch.stack(heat.aminmax()).tolist()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"Expected a heatmap in [0, 1], as `heatmaps()` gives them, but got {low:.3g} to {high:.3g}.")
    size = (pixels.shape[1], pixels.shape[2])
    return heat[None] if tuple(heat.shape) == size else resize(heat[None], size)
