"""The picture of a look with an attack: every image clean and attacked, and what the attack changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.captions import (
    GAP,
    draw_caption,
    draw_footer,
    draw_header,
    draw_line,
    encode_label,
    encode_prediction,
    fit_name_width,
    stack_parts,
)
from lightning_gradcam.render.colors import FAINT, PAPER, lay_over_signed, to_bytes, to_gray
from lightning_gradcam.render.font import Font
from lightning_gradcam.render.photos import SEAM, Photos, fit_tiles, to_rgb
from lightning_gradcam.render.sheet import WIDTH, Arrangement, Sheet, scale_tile
from lightning_gradcam.targets.logits import predictions
from lightning_gradcam.utils.interpolation import Interpolation

_ONE_COLUMN = 8  # of images: as many are shown large
_MOST = 150  # pixels of a tile
_TILES = 6  # of an image
_LEGEND = ["each image: clean | attacked | how the map changed (red more, blue less), and what was added, "]


@dataclass(frozen=True)
class AttackSheet:
    """What stays the same from look to look, prepared once on the probe's device.

    Args:
        sheet: The clean images at the size of their tiles, colours and fonts.
        names: ``(K, characters)`` codes of the classes' names.
        photos: ``(N, 3, H, W)`` the clean images in [0, 1], at their own size.
        interpolation: How maps are enlarged.
    """

    sheet: Sheet
    names: Tensor
    photos: Tensor
    interpolation: Interpolation

    @staticmethod
    def of(
        probe: Probe, photos: Tensor, names: Sequence[str], colormap: str, interpolation: Interpolation = "bilinear"
    ) -> AttackSheet:
        """Prepare the picture of a probe.

        Args:
            probe: The images and their labels.
            photos: ``(N, 3, H, W)`` in [0, 1].
            names: What the classes are called, one for each.
            colormap: A matplotlib colormap.
            interpolation: How maps are enlarged.
        """
        columns = 1 if len(probe) <= _ONE_COLUMN else 2
        room = (WIDTH - GAP) // columns - GAP - 3 * SEAM - 2 * GAP
        size = scale_tile((photos.shape[-2], photos.shape[-1]), min(room // _TILES, _MOST))
        sheet = Sheet.of(probe, photos, names, colormap, Arrangement(columns, size), interpolation)
        return AttackSheet(
            sheet, sheet.font.encode(list(names), fit_name_width(_characters(sheet))), photos, interpolation
        )

    @torch.no_grad()
    def draw(
        self,
        both: tuple[Explanation, Explanation],
        key: str,
        pixels: Tensor,
        agree: Tensor,
        *,
        title: str,
        facts: Sequence[str | Tensor] = (),
        scale: Tensor | None = None,
    ) -> Tensor:
        """The picture, ``(3, height, width)`` uint8 on the probe's device.

        Args:
            both: The explanations of the clean and of the attacked images.
            key: Which of their maps.
            pixels: ``(N, C, H, W)`` the attacked images in [0, 1].
            agree: ``(N,)`` how far both maps agree, from -1 to 1; NaN where that cannot be said.
            title: The head line.
            facts: The line below it.
            scale: The evidence that has the last colour; None scales every map by itself.
        """
        clean, attacked = both
        sheet, size = self.sheet, (self.sheet.photos.shape[-2], self.sheet.photos.shape[-1])
        twins = to_rgb(pixels.detach().float().clamp(0, 1))
        other = replace(sheet, canvas=Photos.of(twins, size, 1, sheet.ramp, sheet.font))
        noise, gain = self._noise(twins, size)
        tiles = [
            (sheet.photos, sheet.overlays(clean.evidence[key], clean.map_status[key], scale)),
            (other.photos, other.overlays(attacked.evidence[key], attacked.map_status[key], scale)),
            (self._change(both, key, size, scale), noise),
        ]
        captions = [
            self._prediction(clean, "clean"),
            self._prediction(attacked, "attacked"),
            self._verdict(both, agree),
        ]
        gap = sheet.photos.new_full((len(twins), 3, size[0] + captions[0].shape[2], GAP), PAPER[0])
        parts = [torch.cat([_beside(*pair), words], dim=2) for pair, words in zip(tiles, captions, strict=True)]
        grid = _grid(torch.cat([parts[0], gap, parts[1], gap, parts[2]], dim=3), sheet.columns)
        foot_line = draw_footer(
            sheet.font,
            sheet.ramp,
            scale,
            sheet.labels is not None,
            grid.shape[-1],
            sheet.canvas,
            sheet.most(clean.evidence[key]),
        )
        width = max(grid.shape[-1], foot_line.shape[-1])
        said = draw_line(sheet.font, self._attack_line(both, key, agree), width)
        key_line = draw_line(sheet.font, [*_LEGEND, sheet.font.fixed(gain, 2, 0), " times"], width, ink=FAINT)
        return stack_parts([draw_header(title, facts, sheet.font, sheet.bold, width), said, grid, key_line, foot_line])

    def _attack_line(self, both: tuple[Explanation, Explanation], key: str, agree: Tensor) -> list[str | Tensor]:
        """What the attack did to all images."""
        font, count = self.sheet.font, len(self.photos)
        moved, codes = _moved(both), both[1].map_status[key]

        def many(chosen: Tensor, what: str) -> Tensor:
            rows = font.encode([f" · {i} of {count} {what}" for i in range(count + 1)])
            return rows.index_select(0, chosen.sum().reshape(1))[0]

        means = [agree.nanmean(), agree.masked_fill(moved, torch.nan).nanmean()]
        said = [_signed(font, mean[None])[0] for mean in means]
        kept: list[str | Tensor] = [" · maps agree ", said[0], ", where the prediction held ", said[1]]
        return ["attack", many(moved, "predictions moved"), *kept, many(codes > 0, "maps degenerate")]

    def _noise(self, twins: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What the attack added, over grey, as strong as goes for all images, and how much that enlarges it."""
        change = twins - self.photos
        gain = (0.5 / change.abs().max().clamp_min(1e-3)).floor().clamp_min(1)
        return to_bytes(fit_tiles((0.5 + gain * change).clamp(0, 1), size) * 255), gain

    def _change(
        self, both: tuple[Explanation, Explanation], key: str, size: tuple[int, int], scale: Tensor | None
    ) -> Tensor:
        """The attacked map minus the clean one, as they are drawn, over the clean photo."""
        before, after = (
            to_heatmaps(self.sheet.shown(e.evidence[key], scale), e.map_status[key], size, scale, self.interpolation)
            for e in both
        )
        return lay_over_signed(to_gray(self.sheet.photos.float() / 255), after - before)

    def _prediction(self, explanation: Explanation, which: str) -> Tensor:
        """Two lines under a photo and its map."""
        sheet, characters = self.sheet, _characters(self.sheet)
        best = predictions(explanation.logits)
        right = sheet.right(best[1])
        first = sheet.font.encode([which], characters).expand(len(self.photos), -1)
        if which == "clean" and sheet.labels is not None:
            first = encode_label(sheet.font, self.names, sheet.labels, characters)
        second = encode_prediction(sheet.font, self.names, best, right, characters)
        second = F.pad(second, (0, characters - second.shape[1]))
        return draw_caption(sheet.font, [first, second], _width(sheet), right)

    def _verdict(self, both: tuple[Explanation, Explanation], agree: Tensor) -> Tensor:
        """Whether the attack has changed the prediction, a right one to a wrong one, and how far the maps agree."""
        font, characters = self.sheet.font, _characters(self.sheet)
        moved, right = _moved(both), self.sheet.right(predictions(both[0].logits)[1])
        fooled = moved if right is None else moved & right
        words = font.encode(["prediction held", "prediction moved", "fooled"], characters)
        said = font.encode(["maps agree "])[0].expand(len(moved), -1)
        second = torch.cat([said, _signed(font, agree)], 1)
        second = F.pad(second, (0, max(characters - second.shape[1], 0)))[:, :characters]
        return draw_caption(font, [words[moved.long() + fooled.long()], second], _width(self.sheet), ~moved)


def _moved(both: tuple[Explanation, Explanation]) -> Tensor:
    """``(N,)`` whether the prediction for the attacked image is another one."""
    before, after = (predictions(explanation.logits)[1] for explanation in both)
    return before != after


def _signed(font: Font, values: Tensor) -> Tensor:
    """Numbers from -1 to 1 with two decimals, ``(N, 5)`` codes; "–" for what is not finite."""
    sign = font.encode(["-", " "])[(~(values < 0)).long()]
    return torch.cat([sign, font.fixed(torch.where(values < 0, -values, values), 1, 2)], 1)


def _beside(left: Tensor, right: Tensor) -> Tensor:
    seam = left.new_full((*left.shape[:3], SEAM), PAPER[0])
    return torch.cat([left, seam, right], dim=3)


def _grid(cells: Tensor, columns: int) -> Tensor:
    if len(cells) == 1:  # which make_grid leaves without padding
        return F.pad(cells[0], (GAP, GAP, GAP, GAP), value=PAPER[0])
    grid: Tensor = make_grid(cells, nrow=columns, padding=GAP, pad_value=PAPER[0])
    return grid


def _width(sheet: Sheet) -> int:
    """Of two tiles side by side, in pixels."""
    return 2 * sheet.photos.shape[-1] + SEAM


def _characters(sheet: Sheet) -> int:
    return (_width(sheet) - 2) // sheet.font.width
