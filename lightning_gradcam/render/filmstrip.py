"""The picture of a whole run: looks across, images down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.canvas import find_canvas_type
from lightning_gradcam.render.captions import GAP, draw_footer, draw_header, stack_parts
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.render.font import paint
from lightning_gradcam.render.sheet import WIDTH, Arrangement, Sheet, scale_tile
from lightning_gradcam.utils.interpolation import Interpolation

ROWS = 10
_WORDS = 13  # at most, in the column that names the labels


@dataclass(frozen=True)
class Frame:
    """What one look leaves for the film: its name, and evidence, map_status and logits of its images."""

    name: str
    evidence: Tensor
    map_status: Tensor
    logits: Tensor


@dataclass
class Film:
    """The looks of a run, evenly thinned out: at most twice as many are held as are shown.

    >>> film = Film(length=4)
    >>> for epoch in range(12):
    ...     film.add(Frame(str(epoch), torch.ones(1, 4, 4), torch.zeros(1), torch.zeros(1, 2)))
    >>> [frame.name for frame in film.shown()]
    ['0', '4', '8', '11']
    """

    length: int = 8
    frames: list[Frame] = field(default_factory=list)
    seen: int = 0
    stride: int = 1

    def add(self, frame: Frame) -> None:
        """Take a look in, as the latest, and thin out where there are too many."""
        if (self.seen - 1) % self.stride != 0:
            self.frames = self.frames[:-1]  # held only while it was the latest
        self.frames = [*self.frames, frame]
        self.seen += 1
        if len(self.frames) > 2 * self.length:
            self.stride *= 2
            self.frames = self.frames[::2]  # first and latest among them: their number is odd

    def shown(self) -> list[Frame]:
        """The looks of the picture, evenly spread, first and latest among them."""
        count = min(self.length, len(self.frames))
        return [self.frames[i] for i in torch.linspace(0, len(self.frames) - 1, count).round().long().tolist()]

    def state_dict(self) -> dict[str, Any]:
        """Plain containers of CPU tensors."""
        frames = [
            {"name": f.name, "evidence": f.evidence.cpu(), "flaws": f.map_status.cpu(), "logits": f.logits.cpu()}
            for f in self.frames
        ]
        return {"seen": self.seen, "stride": self.stride, "frames": frames}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from `state_dict`, on ``device``."""
        self.seen, self.stride = state["seen"], state["stride"]
        tensors = ("evidence", "flaws", "logits")
        self.frames = [Frame(f["name"], *(f[name].to(device) for name in tensors)) for f in state["frames"]]

    @torch.no_grad()
    def draw(
        self,
        probe: Probe,
        photos: Tensor,
        names: Sequence[str],
        colormap: str,
        *,
        title: str,
        scale: Tensor | None,
        interpolation: Interpolation = "bilinear",
    ) -> Tensor:
        """The picture, ``(3, height, width)`` uint8; up to ten images, of as many classes as there are.

        Args:
            probe: The images and their labels.
            photos: ``(N, C, *spatial)``: the images as `restore` gives them. Of volumes, the slice is shown in which
                the last look found the most evidence.
            names: What the classes are called.
            colormap: A matplotlib colormap.
            title: The head line.
            scale: The evidence that has the last colour, in all images of all looks; None scales each by itself.
            interpolation: How maps are enlarged.
        """
        frames = self.shown()
        rows = _spread(probe)
        words = 0 if probe.classes is None else min(max(map(len, names)), _WORDS)
        width = min((WIDTH - words * 7 - 3 * GAP) // (len(frames) + 1) - GAP, 128)
        size = scale_tile(find_canvas_type(photos).extent(photos)[:2], width)
        sheet = Sheet.of(probe[rows], photos[rows], names, colormap, Arrangement(len(frames) + 1, size), interpolation)
        sheet = sheet.freeze_view(frames[-1].evidence[rows])
        columns = _level([sheet.photos, *(_cell(sheet, frame, rows, scale) for frame in frames)])
        ordered = torch.stack(columns, dim=1).flatten(0, 1)
        grid = make_grid(ordered, nrow=len(columns), padding=GAP, pad_value=PAPER[0])
        over = _names_over(sheet, [sheet.canvas.noun, *(frame.name for frame in frames)])
        body = torch.cat([over, grid], dim=1)
        if words:
            known = sheet.font.encode(list(names), words)
            body = torch.cat([_names_beside(sheet, known, columns[0].shape[2], over.shape[1]), body], dim=2)
        foot_line = draw_footer(
            sheet.font, sheet.ramp, scale, bool(words), body.shape[2], sheet.canvas, sheet.most(frames[-1].evidence)
        )
        return stack_parts([draw_header(title, (), sheet.font, sheet.bold, foot_line.shape[-1]), body, foot_line])


def _spread(probe: Probe) -> list[int]:
    """Rows for the film: one of each class before a second one of any. (Waits for the device.)"""
    labels = [0] * len(probe) if probe.classes is None else probe.classes.tolist()
    turn = [labels[:i].count(label) for i, label in enumerate(labels)]
    return sorted(sorted(range(len(probe)), key=lambda i: (turn[i], i))[:ROWS])


def _cell(sheet: Sheet, frame: Frame, rows: Sequence[int], scale: Tensor | None) -> Tensor:
    tiles = sheet.overlays(frame.evidence[rows], frame.map_status[rows], scale)
    return torch.cat([tiles, sheet.captions(frame.logits[rows], with_label=False)], dim=2)


def _level(columns: Sequence[Tensor]) -> list[Tensor]:
    """Columns of tiles ``(n, 3, h, w)``, all as high as the highest."""
    height = max(tiles.shape[2] for tiles in columns)
    return [F.pad(tiles, (0, 0, 0, height - tiles.shape[2]), value=PAPER[0]) for tiles in columns]


def _names_over(sheet: Sheet, names: Sequence[str]) -> Tensor:
    width = sheet.photos.shape[-1]
    coverage = sheet.font.draw(sheet.font.encode(list(names), sheet.characters))
    coverage = F.pad(coverage, (GAP, width - coverage.shape[-1]))
    return F.pad(paint(torch.cat(list(coverage), dim=1), INK, PAPER), (0, GAP, 0, 0), value=PAPER[0])


def _names_beside(sheet: Sheet, known: Tensor, cell: int, above: int) -> Tensor:
    assert sheet.labels is not None
    coverage = sheet.font.draw(known[sheet.labels.clamp(0, len(known) - 1)])
    top = (sheet.photos.shape[-2] - coverage.shape[-2]) // 2
    coverage = F.pad(coverage, (GAP, GAP, top, cell + GAP - top - coverage.shape[-2]))
    coverage = F.pad(torch.cat(list(coverage)), (0, 0, above, GAP))
    return paint(coverage, INK, PAPER)
