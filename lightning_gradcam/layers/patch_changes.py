"""Patches of the images are changed, and the change of a map is compared with their places.

Half of the patches are changed in one half of the images, the other half in the others. Where the two halves of the
images meet the same cell, the ratio of its changes tells in which of them its own patch was changed; what attention
spreads over all cells, and cells that react to everything, cancel out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.capture.layouts import Frames, Grid, ToGrid, Tokens, channels_last

_PATCHES_PER_SIDE = {1: 32, 2: 8, 3: 4}
_SMOOTH = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_DRAWS = 16


class Pattern(NamedTuple):
    """Patches to change.

    Args:
        signs: ``(*spatial)``: 1 where even rows are changed, -1 where odd ones are.
        sides: Number of patches along each dimension.
    """

    signs: Tensor
    sides: Grid


def draw_pattern(image_size: Grid, grid: Grid, seed: int) -> Pattern:
    """Draw the patches that are changed.

    Patches are cells of ``grid``, or unions of them, in an arrangement that a map with its axes exchanged, or of rows
    and columns that have nothing to do with each other, cannot imitate.
    """
    # The grid may have another order of dimensions than the image: more cells belong to the longer sides.
    longest_first = sorted(range(len(grid)), key=lambda dimension: -image_size[dimension])
    counts = dict(zip(longest_first, sorted(grid, reverse=True), strict=True))
    sides = tuple(min(counts[d], _PATCHES_PER_SIDE[len(grid)]) for d in range(len(grid)))
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.rand(sides, generator=generator).lt(0.5).float() * 2 - 1 for _ in range(_DRAWS)]
    pattern = max(draws, key=_measure_distinctness)
    return Pattern(F.interpolate(pattern[None, None], size=image_size, mode="nearest-exact")[0, 0], sides)


def _measure_distinctness(pattern: Tensor) -> float:
    """Return how much of a pattern is left without its rows and columns, less what it shares with its transpose."""
    centered, shared = remove_axis_means(pattern), 0.0
    if pattern.ndim > 1:
        turned = F.interpolate(pattern.mT[None, None], size=tuple(pattern.shape), mode="area")[0, 0]
        shared = float((centered * remove_axis_means(turned)).sum().abs())
    return (float(centered.square().sum()) - shared) / pattern.numel()


def remove_axis_means(values: Tensor) -> Tensor:
    """Remove what rows, columns and slices have in common from ``(*grid)``; of a signal, the mean.

    A matrix of tokens by tokens has rows and columns that follow the image, too, but not the cells where they meet.
    """
    mean = values.mean()
    if values.ndim == 1:
        return values - mean
    axes = range(values.ndim)
    profiles = [values.mean([dim for dim in axes if dim != axis], keepdim=True) - mean for axis in axes]
    return values - mean - sum(profiles)


def change_patches(images: Tensor, signs: Tensor, seed: int) -> Tensor:
    """Add noise of the images' own spread to the patches of each: those of 1 in even rows, those of -1 in odd ones.

    Args:
        images: ``(n, C, *spatial)``.
        signs: Those of a `Pattern`.
        seed: Seed of the noise; no global generator is used.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images.shape[1:], generator=generator)
    offsets = torch.randn(images.shape[1], *(1 for _ in signs.shape), generator=generator)
    spread = float(images.float().std()) if images.numel() > 1 else 0.0
    noise = (0.7 * (spread if 0 < spread < math.inf else 1.0) * (pixels + offsets)).to(images.device)
    halves = torch.tensor([1.0, -1.0]).repeat(len(images))[: len(images)].reshape(-1, *(1 for _ in signs.shape))
    is_changed = (signs * halves > 0)[:, None].to(images.device)
    return images + (noise * is_changed).to(images.dtype)


def compare_halves(change: Tensor, layout: ToGrid, images: int) -> Tensor:
    """Compare the change of each position in the even with that in the odd rows of the images.

    Args:
        change: Change of an output.
        layout: How the output is read. Only its batch and channel dimensions matter.
        images: Number of images.

    Returns:
        The logarithm of the ratio, as an output of one image and one channel, on the CPU.
    """
    frames, inner = (layout.count, layout.layout) if isinstance(layout, Frames) else (1, layout)
    batch = inner.rows if isinstance(inner, Tokens) else 0
    channels = -1 if isinstance(inner, Tokens) or inner is channels_last else 1
    rows = change.float().movedim(batch, 0).movedim(channels, 1)
    rows = rows.reshape(images, frames, *rows.shape[1:])
    positions = [1, *range(3, rows.ndim)]
    sizes = (rows - rows.mean(positions, keepdim=True)).norm(dim=2, keepdim=True)
    logs = sizes.clamp_min(torch.finfo(torch.float32).tiny).log()
    contrast: Tensor = logs[0::2].mean(0) - (logs[1::2].mean(0) if images > 1 else 0)
    return contrast.movedim(1, channels).movedim(0, batch).cpu()


class Agreement(NamedTuple):
    """How well the changes of a map agree with the places of the changed patches.

    Args:
        correlation: From -1 to 1; about 0 if the cells have nothing to do with the places.
        z: The same in standard deviations of such a map.
    """

    correlation: float
    z: float


def measure_agreement(contrasts: Sequence[Tensor], patterns: Sequence[Pattern], layout: ToGrid) -> Agreement:
    """Measure how well the contrasts of an output, read in a layout, agree with the patterns.

    Cells see their surroundings as well, so both are also compared smoothed; the better agreement counts.

    Args:
        contrasts: Results of `compare_halves`, one for each pattern.
        patterns: The patterns of the changes.
        layout: Turns the output into ``(n, C, *grid)``.
    """
    maps = [layout(contrast)[0, 0] for contrast in contrasts]
    if not maps:
        return Agreement(0.0, 0.0)
    grid = tuple(maps[0].shape)
    targets = [F.interpolate(p.signs[None, None], size=grid, mode="area")[0, 0] for p in patterns]
    freedom = sum(math.prod(max(min(s) - 1, 1) for s in zip(grid, p.sides, strict=True)) for p in patterns)
    best = max(_correlate(maps, targets), _correlate(list(map(_smooth, maps)), list(map(_smooth, targets))))
    return Agreement(best, best * math.sqrt(freedom))


def _smooth(values: Tensor) -> Tensor:
    pool = _SMOOTH[values.ndim]
    padded = F.pad(values[None, None], (1, 1) * values.ndim, mode="replicate")
    smoothed: Tensor = pool(padded, 3, 1)[0, 0]
    return smoothed


def _correlate(maps: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    first = torch.stack([remove_axis_means(m) for m in maps])
    second = torch.stack([remove_axis_means(t) for t in targets])
    spread = (first.square().sum() * second.square().sum()).sqrt()
    return float((first * second).sum() / spread) if spread > 0 else 0.0
