"""Figure of a snapshot with an attack: every image clean and attacked, and the change that the attack caused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.render.arrangement import GAP, SEAM, WIDTH, Arrangement, scale_tile
from lightning_gradcam.render.captions import Captions
from lightning_gradcam.render.colors import FAINT, blend_changes, to_bytes, to_gray
from lightning_gradcam.render.font import Font
from lightning_gradcam.render.legend import Heading, draw_header, draw_text, stack_parts
from lightning_gradcam.render.photos import Photos, to_rgb
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.render.tiles import TileStyle, center_tiles, draw_grid, fit_tiles, join_tiles
from lightning_gradcam.targets.logits import predictions
from lightning_gradcam.utils.interpolation import Interpolation

ExplanationPair: TypeAlias = tuple[Explanation, Explanation]
"""The explanations of the clean and of the attacked images."""

_TILES_PER_IMAGE = 6
_TILE_WIDTH = (WIDTH - 2 * GAP - 2 * GAP - 3 * SEAM) // _TILES_PER_IMAGE
_COLUMN_LEGEND = "each image: clean | attacked | how the map changed (red more, blue less), and what was added, "


@dataclass(frozen=True)
class AttackSheet:
    """Everything that figures of an attacked probe share between snapshots, prepared once on the probe's device.

    Args:
        sheet: The sheet of the clean images.
        captions: Captions as wide as two tiles.
        photos: ``(N, 3, H, W)`` the clean images in [0, 1] at their original size.
    """

    sheet: Sheet
    captions: Captions
    photos: Tensor

    @staticmethod
    def from_probe(
        probe: Probe, photos: Tensor, names: Sequence[str], colormap: str, interpolation: Interpolation = "bilinear"
    ) -> AttackSheet:
        """Prepare the sheet of a probe.

        Args:
            probe: The clean images and their labels.
            photos: ``(N, 3, H, W)`` in [0, 1].
            names: The class names.
            colormap: A matplotlib colormap.
            interpolation: How maps are enlarged.
        """
        size = scale_tile((photos.shape[-2], photos.shape[-1]), _TILE_WIDTH)
        arrangement = Arrangement(1, size, width=_TILE_WIDTH)
        sheet = Sheet.from_probe(probe, photos, names, colormap, arrangement, interpolation)
        captions = Captions.from_names(names, probe.classes, sheet.font, 2 * _TILE_WIDTH + SEAM)
        return AttackSheet(sheet, captions, photos)

    @torch.no_grad()
    def draw(
        self,
        explanations: ExplanationPair,
        key: str,
        pixels: Tensor,
        similarity: Tensor,
        heading: Heading,
        *,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Draw the figure.

        Args:
            explanations: Of the clean and of the attacked images.
            key: The key of the map to draw.
            pixels: ``(N, C, H, W)`` the attacked images in [0, 1].
            similarity: ``(N,)`` the agreement of both maps from -1 to 1, NaN where it is undefined.
            heading: The text at the top.
            scale: The evidence that has the last color; None scales each map separately.

        Returns:
            ``(3, height, width)`` uint8 on the probe's device.
        """
        sheet = self.sheet
        grid, gain = self._draw_grid(explanations, key, pixels, similarity, scale)
        last_color = sheet.describe_last_color(explanations[0].evidence[key])
        column_legend: list[str | Tensor] = [_COLUMN_LEGEND, sheet.font.encode_number(gain, 2, 0), " times"]
        return stack_parts(
            [
                draw_header(heading, sheet.font, sheet.bold, WIDTH),
                draw_text(self._describe_attack(explanations, key, similarity), sheet.font, WIDTH),
                grid,
                draw_text(column_legend, sheet.font, WIDTH, ink=FAINT),
                sheet.draw_footer(WIDTH, scale, last_color),
            ]
        )

    def _draw_grid(
        self, explanations: ExplanationPair, key: str, pixels: Tensor, similarity: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Draw the tiles and captions of all images, and return the amplification of the noise, too."""
        (clean, attacked), sheet = explanations, self.sheet
        attacked_photos = to_rgb(pixels.detach().float().clamp(0, 1))
        style = TileStyle(sheet.tile_size, 1, sheet.canvas.color_table, sheet.font, _TILE_WIDTH)
        attacked_sheet = replace(sheet, canvas=Photos.from_images(attacked_photos, style))
        noise, gain = self._draw_noise(attacked_photos)
        centers = clean.centers.get(key)
        columns = [
            (
                sheet.image_tiles,
                sheet.draw_overlays(clean.evidence[key], clean.map_status[key], scale, centers),
                self._draw_prediction(clean, "clean"),
            ),
            (
                attacked_sheet.image_tiles,
                attacked_sheet.draw_overlays(attacked.evidence[key], attacked.map_status[key], scale, centers),
                self._draw_prediction(attacked, "attacked"),
            ),
            (self._draw_map_change(explanations, key, scale), noise, self._draw_effect(explanations, similarity)),
        ]
        cells = [
            torch.cat([join_tiles([left, right], SEAM, dim=3), caption], dim=2) for left, right, caption in columns
        ]
        return draw_grid(join_tiles(cells, GAP, dim=3), sheet.columns), gain

    def _describe_attack(self, explanations: ExplanationPair, key: str, similarity: Tensor) -> list[str | Tensor]:
        """Return the line that summarizes the effect of the attack on all images."""
        font, count = self.sheet.font, len(self.photos)
        has_moved, status = _compare_predictions(explanations), explanations[1].map_status[key]

        def encode_count(mask: Tensor, noun: str) -> Tensor:
            texts = font.encode([f"{i} of {count} {noun}" for i in range(count + 1)])
            return texts.index_select(0, mask.sum().reshape(1))[0]

        means = [similarity.nanmean(), similarity.masked_fill(has_moved, torch.nan).nanmean()]
        mean, mean_where_held = (_encode_signed(font, value[None])[0] for value in means)
        return [
            "attack · ",
            encode_count(has_moved, "predictions moved"),
            " · maps agree ",
            mean,
            ", where the prediction held ",
            mean_where_held,
            " · ",
            encode_count(status > 0, "maps degenerate"),
        ]

    def _draw_noise(self, attacked_photos: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the noise that the attack added, over gray, amplified as far as the range of all images allows.

        Returns:
            Tiles ``(N, 3, h, w)`` uint8, and the amplification.
        """
        noise = attacked_photos - self.photos
        gain = (0.5 / noise.abs().max().clamp_min(1e-3)).floor().clamp_min(1)
        tiles = fit_tiles((0.5 + gain * noise).clamp(0, 1), self.sheet.tile_size)
        return center_tiles(to_bytes(tiles * 255), _TILE_WIDTH), gain

    def _draw_map_change(self, explanations: ExplanationPair, key: str, scale: Tensor | None) -> Tensor:
        """Draw the attacked heatmap minus the clean one over the clean photo, ``(N, 3, h, w)`` uint8."""
        sheet, size = self.sheet, self.sheet.tile_size
        clean, attacked = (
            to_heatmaps(
                sheet.reduce_evidence(explanation.evidence[key], scale),
                explanation.map_status[key],
                size,
                scale,
                sheet.interpolation,
                explanation.centers.get(key),
            )
            for explanation in explanations
        )
        gray = to_gray(fit_tiles(self.photos, size))
        return center_tiles(blend_changes(gray, attacked - clean), _TILE_WIDTH)

    def _draw_prediction(self, explanation: Explanation, side: str) -> Tensor:
        """Draw the caption of a photo and its map: the label or ``side``, and the prediction."""
        captions = self.captions
        first_line = captions.font.encode([side], captions.characters).expand(len(self.photos), -1)
        if side == "clean" and captions.labels is not None:
            first_line = captions.encode_labels(captions.labels)
        lines, is_right = captions.encode_predictions(explanation.logits)
        return captions.draw_lines([first_line, *lines], is_right)

    def _draw_effect(self, explanations: ExplanationPair, similarity: Tensor) -> Tensor:
        """Draw the caption of the change: the effect on the prediction, and the agreement of the maps.

        A model is fooled if the attack moves a right prediction, or any prediction if there are no labels.
        """
        captions, has_moved = self.captions, _compare_predictions(explanations)
        is_right = captions.check_predictions(predictions(explanations[0].logits)[1])
        is_fooled = has_moved if is_right is None else has_moved & is_right
        effects = captions.font.encode(["prediction held", "prediction moved", "fooled"], captions.characters)
        prefix = captions.font.encode(["maps agree"])[0].expand(len(has_moved), -1)
        second_line = torch.cat([prefix, _encode_signed(captions.font, similarity)], 1)
        return captions.draw_lines([effects[has_moved.long() + is_fooled.long()], second_line], ~has_moved)


def _compare_predictions(explanations: ExplanationPair) -> Tensor:
    """Return ``(N,)`` bool: whether the attack changed the predicted class."""
    clean, attacked = (predictions(explanation.logits)[1] for explanation in explanations)
    return clean != attacked


def _encode_signed(font: Font, values: Tensor) -> Tensor:
    """Encode numbers from -1 to 1 with two decimals, ``(N, 5)`` codes; "–" for numbers that are not finite."""
    sign = font.encode(["-", " "])[(~(values < 0)).long()]
    return torch.cat([sign, font.encode_number(torch.where(values < 0, -values, values), 1, 2)], 1)
