"""Maps for display: evidence stretched to [0, 1] and resized."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation, resize


@torch.no_grad()
def to_heatmaps(
    evidence: Tensor,
    map_status: Tensor,
    size: tuple[int, ...],
    scale: float | Tensor | None = None,
    interpolation: Interpolation = "bilinear",
    centers: CellCenters | None = None,
) -> Tensor:
    """Return `Explanation.heatmaps` for the evidence ``(N, *s)`` of one layer."""
    is_readable = (map_status == 0).reshape(-1, *[1] * (evidence.ndim - 1))
    maps = torch.where(is_readable, evidence.relu(), 0)
    if scale is None:
        maps = _stretch(maps)
    else:
        # Constant maps have a magnitude, so a common scale can show them.
        is_shown = ((map_status == 0) | (map_status == MapStatus.CONSTANT)).reshape(is_readable.shape)
        unit = torch.as_tensor(scale, device=maps.device).clamp_min(1e-38)
        maps = (torch.where(is_shown, evidence.relu(), 0) / unit).clamp_max(1e6)  # finite, even if the scale is tiny
    maps = resize(maps, size, interpolation, centers)
    # Interpolation can lower the peak, so pytorch-grad-cam stretches once more.
    return _stretch(maps) if scale is None else maps.clamp(0, 1)


def _stretch(maps: Tensor) -> Tensor:
    """Scale each map linearly to [0, 1]."""
    flat = maps.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    extent = high - low
    # An epsilon would distort a map whose maximum is 1e-9. Only an extent of 0 needs another divisor.
    return ((flat - low) / torch.where(extent > 0, extent, 1)).reshape(maps.shape)
