"""Maps for showing: evidence stretched to [0, 1] and enlarged."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradcam.utils.interpolation import Interpolation, resize


@torch.no_grad()
def to_heatmaps(
    evidence: Tensor,
    map_status: Tensor,
    size: tuple[int, ...],
    scale: float | Tensor | None = None,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """`Explanation.heatmaps` for the evidence ``(N, *s)`` of one layer."""
    usable = (map_status == 0).reshape(-1, *[1] * (evidence.ndim - 1))
    maps = torch.where(usable, evidence.relu(), 0)
    if scale is None:
        maps = _stretch(maps)
    else:
        # Constant maps have a magnitude, so on a common scale they can be shown.
        shown = ((map_status == 0) | (map_status == 4)).reshape(usable.shape)
        unit = torch.as_tensor(scale, device=maps.device).clamp_min(1e-38)
        maps = (torch.where(shown, evidence.relu(), 0) / unit).clamp_max(1e6)  # finite, also where the scale is tiny
    maps = resize(maps, size, interpolation)
    # Interpolation can cut the peak, so pytorch-grad-cam stretches once more.
    return _stretch(maps) if scale is None else maps.clamp(0, 1)


def _stretch(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    extent = high - low
    # No epsilon: a map whose maximum is 1e-9 is a map. Where there is no extent, there is nothing to divide.
    return ((flat - low) / torch.where(extent > 0, extent, 1)).reshape(maps.shape)
