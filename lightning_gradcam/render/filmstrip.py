"""Filmstrip: the figure of a whole run, one column per snapshot and one row per image, in strips below one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import GAP, WIDTH, Arrangement, scale_tile
from lightning_gradcam.render.canvas import find_canvas_type
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.font import paint
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.render.tiles import draw_grid, pad_to_height
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import Interpolation

MAX_IMAGES = 8
"""Rows of a strip."""

_MAX_FRAMES = 4  # snapshots of a strip, next to the images


@dataclass(frozen=True)
class Frame:
    """The record of one snapshot: its name, and the evidence, status and logits of its images."""

    name: str
    evidence: Tensor
    map_status: Tensor
    logits: Tensor


@dataclass
class Film:
    """The snapshots of a run, evenly thinned out: at most twice as many are stored as are drawn.

    Args:
        length: Number of snapshots to draw.
        frames: The stored snapshots.
        snapshot_count: Number of snapshots so far.
        stride: Every how many snapshots one is stored.
        centers: Centers of the maps' cells in the images; None if they cover these evenly.

    >>> film = Film(length=4)
    >>> for epoch in range(12):
    ...     film.add(Frame(str(epoch), torch.ones(1, 4, 4), torch.zeros(1), torch.zeros(1, 2)))
    >>> [frame.name for frame in film.select_frames()]
    ['0', '4', '8', '11']
    """

    length: int = 8
    frames: list[Frame] = field(default_factory=list)
    snapshot_count: int = 0
    stride: int = 1
    centers: CellCenters | None = None

    def add(self, frame: Frame) -> None:
        """Append the latest snapshot, and thin out the stored ones if there are too many."""
        if (self.snapshot_count - 1) % self.stride != 0:
            self.frames = self.frames[:-1]  # stored only while it was the latest
        self.frames = [*self.frames, frame]
        self.snapshot_count += 1
        if len(self.frames) > 2 * self.length:
            self.stride *= 2
            self.frames = self.frames[::2]  # keeps the first and the latest, as the number of frames is odd

    def select_frames(self) -> list[Frame]:
        """Return the snapshots to draw, evenly spaced, including the first and the latest."""
        count = min(self.length, len(self.frames))
        return [self.frames[i] for i in torch.linspace(0, len(self.frames) - 1, count).round().long().tolist()]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain containers of CPU tensors."""
        frames = [
            {"name": f.name, "evidence": f.evidence.cpu(), "flaws": f.map_status.cpu(), "logits": f.logits.cpu()}
            for f in self.frames
        ]
        centers = None if self.centers is None else (self.centers.offset, self.centers.step)
        return {"seen": self.snapshot_count, "stride": self.stride, "frames": frames, "centers": centers}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the state from `state_dict`, with tensors on ``device``."""
        self.snapshot_count, self.stride = state["seen"], state["stride"]
        centers = state.get("centers")  # earlier files have none
        self.centers = None if centers is None else CellCenters(*map(tuple, centers))
        tensors = ("evidence", "flaws", "logits")
        self.frames = [Frame(f["name"], *(f[name].to(device) for name in tensors)) for f in state["frames"]]

    @torch.no_grad()
    def draw(
        self,
        probe: Probe,
        images: Tensor,
        names: Sequence[str],
        colormap: str,
        *,
        title: str,
        scale: Tensor | None,
        interpolation: Interpolation = "bilinear",
    ) -> Tensor:
        """Draw up to eight images, of as many classes as possible, next to up to four snapshots per strip.

        Args:
            probe: The images and their labels.
            images: ``(N, C, *spatial)`` as `restore_images` returns them. Of a volume, the slice with the most evidence
                in the latest snapshot is shown.
            names: The class names.
            colormap: A matplotlib colormap.
            title: The first line.
            scale: The evidence that has the last color in all images of all snapshots; None scales each separately.
            interpolation: How maps are enlarged.

        Returns:
            ``(3, height, width)`` uint8.
        """
        frames, indices = self.select_frames(), _choose_images(probe)
        columns = min(len(frames), _MAX_FRAMES) + 1
        width = (WIDTH - GAP) // columns - GAP
        size = scale_tile(find_canvas_type(images).measure_view(images)[:2], width)
        arrangement = Arrangement(columns, size, width=width)
        sheet = Sheet.from_probe(probe[indices], images[indices], names, colormap, arrangement, interpolation)
        sheet = sheet.freeze_view(frames[-1].evidence[indices], self.centers)
        strips = [frames[i : i + columns - 1] for i in range(0, len(frames), columns - 1)]
        body = torch.cat([self._draw_strip(sheet, strip, indices, scale) for strip in strips], dim=1)
        return sheet.add_legend(body, Heading(title), scale, sheet.describe_last_color(frames[-1].evidence))

    def _draw_strip(
        self, sheet: Sheet, frames: Sequence[Frame], indices: Sequence[int], scale: Tensor | None
    ) -> Tensor:
        """Draw the images and some snapshots as columns below their names, ``(3, h, w)`` uint8."""
        captions, image_tiles = sheet.captions, sheet.image_tiles
        if captions.labels is not None:
            labels = captions.draw_lines([captions.encode_labels(captions.labels)])
            image_tiles = torch.cat([image_tiles, labels], dim=2)
        tiles = pad_to_height([image_tiles, *(self._draw_frame(sheet, frame, indices, scale) for frame in frames)])
        tiles += [torch.full_like(tiles[0], PAPER[0])] * (sheet.columns - len(tiles))
        grid = draw_grid(torch.stack(tiles, dim=1).flatten(0, 1), sheet.columns)
        names = [sheet.canvas.noun, *(frame.name for frame in frames)]
        return torch.cat([_draw_column_names(sheet, names), grid], dim=1)

    def _draw_frame(self, sheet: Sheet, frame: Frame, indices: Sequence[int], scale: Tensor | None) -> Tensor:
        """Draw the overlays and predictions of one snapshot, ``(n, 3, h, w)`` uint8."""
        overlays = sheet.draw_overlays(frame.evidence[indices], frame.map_status[indices], scale, self.centers)
        return torch.cat([overlays, sheet.captions.draw(frame.logits[indices], with_label=False)], dim=2)


def _choose_images(probe: Probe) -> list[int]:
    """Return the images to draw, by index: one of each class before a second one of any. (Waits for the device.)"""
    labels = [0] * len(probe) if probe.classes is None else probe.classes.tolist()
    occurrence = [labels[:i].count(label) for i, label in enumerate(labels)]
    return sorted(sorted(range(len(probe)), key=lambda i: (occurrence[i], i))[:MAX_IMAGES])


def _draw_column_names(sheet: Sheet, names: Sequence[str]) -> Tensor:
    """Draw the names of the columns above the grid, ``(3, h, w)`` uint8, each as wide as its column and a gap."""
    width = sheet.captions.width + GAP
    coverage = sheet.font.draw(sheet.font.encode(list(names), width // sheet.font.width))
    coverage = F.pad(coverage, (0, width - coverage.shape[-1]))
    line = F.pad(torch.cat(list(coverage), dim=1), (GAP, 0, GAP, 0))
    missing = sheet.columns * width + GAP - line.shape[-1]
    return paint(F.pad(line, (0, missing)), INK, PAPER)
