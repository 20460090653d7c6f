"""One image next to its evidence, and next to the evidence of a second explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import SEAM, Arrangement, scale_tile
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.colors import blend_changes, to_gray
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.render.tiles import join_tiles, pad_to_height

TILE_WIDTH = 160
"""Maximum width of a tile in pixels."""


@torch.no_grad()
def draw_strips(
    images: Tensor,
    first: Explanation,
    second: Explanation,
    indices: Sequence[int],
    bands: Sequence[int] | None = None,
) -> Mapping[int, Tensor]:
    """Draw images next to both overlays and, for photos, their difference.

    Args:
        images: ``(N, C, *spatial)`` before normalization.
        first: An explanation of the images; its first map is drawn.
        second: Another explanation, with the same keys.
        indices: The images to draw.
        bands: The channels to show as red, green and blue, see `restore_images`.

    Returns:
        Figures ``(3, h, w)`` uint8 by index.
    """
    return _draw_strips(images, [first, second], indices, bands)


@torch.no_grad()
def draw_pairs(
    images: Tensor, explanation: Explanation, indices: Sequence[int], bands: Sequence[int] | None = None
) -> Mapping[int, Tensor]:
    """Draw images next to their overlays, see `draw_strips`."""
    return _draw_strips(images, [explanation], indices, bands)


def _draw_strips(
    images: Tensor, explanations: Sequence[Explanation], indices: Sequence[int], bands: Sequence[int] | None
) -> Mapping[int, Tensor]:
    if not indices:
        return {}
    selection = torch.tensor(list(indices))
    key = next(iter(explanations[0].evidence))
    maps = [(e.evidence[key][selection], e.map_status[key][selection], e.centers.get(key)) for e in explanations]
    photos, _ = restore_images(images[selection], bands=bands)
    size = scale_tile((photos.shape[-2], photos.shape[-1]), TILE_WIDTH) if photos.ndim == 4 else None
    arrangement = None if size is None else Arrangement(len(indices), size)
    sheet = Sheet.from_probe(Probe(images[selection]), photos, ["0"], arrangement=arrangement)
    sheet = sheet.freeze_view(maps[0][0], maps[0][2])
    tiles = [
        sheet.image_tiles,
        *(sheet.draw_overlays(evidence, status, centers=centers) for evidence, status, centers in maps),
    ]
    if size is not None and len(maps) > 1:
        first, second = (to_heatmaps(evidence, status, size, centers=centers) for evidence, status, centers in maps)
        tiles.append(blend_changes(to_gray(sheet.image_tiles.float() / 255), second - first))
    # Heights differ: there are curves below signals, and numbers below slices.
    return dict(zip(indices, join_tiles(pad_to_height(tiles), SEAM, dim=3), strict=True))
