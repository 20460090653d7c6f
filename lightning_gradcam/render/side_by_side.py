"""One image and its evidence before and after, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.colors import PAPER, lay_over_signed, to_gray
from lightning_gradcam.render.photos import SEAM
from lightning_gradcam.render.sheet import Arrangement, Sheet, scale_tile

TILE = 160
"""Pixels of a tile's width, at most."""


@torch.no_grad()
def draw_strips(images: Tensor, before: Explanation, after: Explanation, rows: Sequence[int]) -> Mapping[int, Tensor]:
    """Pictures ``(3, h, w)`` uint8 by row: the image, both overlays, and of photos the change between them.

    Args:
        images: ``(N, C, *spatial)`` before normalisation.
        before: What was found first; of its layers and methods, the first is shown.
        after: What was found then.
        rows: Which images.
    """
    return _beside(images, [before, after], rows)


@torch.no_grad()
def draw_pairs(images: Tensor, found: Explanation, rows: Sequence[int]) -> Mapping[int, Tensor]:
    """Pictures ``(3, h, w)`` uint8 by row: the image, and the overlay; arguments as for `draw_strips`."""
    return _beside(images, [found], rows)


def _beside(images: Tensor, found: Sequence[Explanation], rows: Sequence[int]) -> Mapping[int, Tensor]:
    if not rows:
        return {}
    key = next(iter(found[0].evidence))
    index = torch.tensor(list(rows))
    photos, _ = restore_images(images[index])
    size = scale_tile((photos.shape[-2], photos.shape[-1]), TILE) if photos.ndim == 4 else None
    arrangement = None if size is None else Arrangement(len(rows), size)
    sheet = Sheet.of(Probe(images[index]), photos, ["0"], arrangement=arrangement)
    sheet = sheet.freeze_view(found[0].evidence[key][index])
    parts = [sheet.photos]
    parts += [sheet.overlays(e.evidence[key][index], e.map_status[key][index]) for e in found]
    if size is not None and len(found) > 1:
        maps = [to_heatmaps(e.evidence[key][index], e.map_status[key][index], size) for e in found]
        parts.append(lay_over_signed(to_gray(sheet.photos.float() / 255), maps[1] - maps[0]))
    height = max(part.shape[-2] for part in parts)  # curves stand below signals, and numbers below slices
    parts = [F.pad(part, (0, 0, 0, height - part.shape[-2]), value=PAPER[0]) for part in parts]
    seam = parts[0].new_full((len(rows), 3, height, SEAM), PAPER[0])
    beside = [item for part in parts for item in (part, seam)][:-1]
    return dict(zip(rows, torch.cat(beside, dim=3), strict=True))
