"""The figures of one probe, snapshot after snapshot, with the images, colors and scales that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import REFERENCE, Explanation
from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.methods.resolve import describe_target
from lightning_gradcam.monitor.adversarial import AttackedExplanation
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.probe.probe import Probe, restore_pixels
from lightning_gradcam.probe.types import Target
from lightning_gradcam.render.attack_sheet import AttackSheet
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.multi_map_sheet import MapRow, draw_rows
from lightning_gradcam.render.photos import to_rgb
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.stability import spearman
from lightning_gradcam.targets import target_name
from lightning_gradcam.targets.embeddings import compares_images


@dataclass(frozen=True)
class Caption:
    """The facts in a figure's caption.

    Args:
        moment: The title of the snapshot: "epoch 3 · step 120".
        measured: The numbers of the snapshot, see `DriftTracker.measured`.
        is_first: Whether there is no earlier snapshot to compare with.
    """

    moment: str
    measured: Mapping[str, Tensor]
    is_first: bool = False


class FigureBuilder:
    """Draws snapshots, and keeps what later ones need: the largest evidence so far, and the frames of the film.

    Args:
        probe: The images; their labels and normalization are used.
        class_names: The names of the classes, one for each.
        explainer: The prepared explainer.
        target: The score that is explained.
        display: Options of the figures.
        is_attacked: Whether attacked images are drawn next to the clean ones, if they are photos.
    """

    def __init__(
        self,
        probe: Probe,
        class_names: Sequence[str],
        explainer: Explainer,
        target: Target,
        display: DisplayConfig,
        is_attacked: bool,
    ) -> None:
        self.probe, self.class_names, self.display = probe, class_names, display
        self._methods, self._of_target = explainer.methods, describe_target(explainer.methods, target_name(target))
        self._score_word = str(getattr(target, "score_word", "score"))
        self.photos, self.note = restore_images(probe.images, probe.pixels, display.bands)
        self._bands = display.bands if probe.pixels is None or probe.pixels.bands is None else probe.pixels.bands
        self.film = Film(max(display.film, 2))
        self.attack_sheet: AttackSheet | None = None
        if is_attacked and len(probe.size) == 2:
            photos = to_rgb(restore_pixels(probe).float().clamp(0, 1), self._bands)
            self.attack_sheet = AttackSheet.from_probe(
                probe, photos, class_names, display.colormap, display.interpolation
            )
        self.sheet = self._build_sheet(self.photos)
        self.references: Sheet | None = None
        if compares_images(target, probe) and probe.references is not None:
            self.references = self._build_sheet(restore_images(probe.references, probe.pixels, display.bands)[0])
        self._largest: dict[str, Tensor] = {}

    def _build_sheet(self, photos: Tensor) -> Sheet:
        colormap, interpolation = self.display.colormap, self.display.interpolation
        return Sheet.from_probe(
            self.probe, photos, self.class_names, colormap, interpolation=interpolation, score_word=self._score_word
        )

    def draw(
        self, explanation: Explanation, caption: Caption, attacked: AttackedExplanation | None
    ) -> dict[str, Tensor]:
        """Draw a figure ``(3, height, width)`` uint8 for each layer, of all its methods; with an attack, for each map.

        Args:
            explanation: The explanation of the snapshot.
            caption: The facts in the caption.
            attacked: The attacked images and their explanation, if there is an attack.
        """
        for key, evidence in explanation.evidence.items():
            magnitude = evidence.relu().nan_to_num(0, 0, 0).max()
            self._largest[key] = torch.maximum(self._largest.get(key, magnitude), magnitude)
        if attacked is not None and self.attack_sheet is not None:
            return {
                key: self._draw_attacked(self.attack_sheet, explanation, key, caption, attacked)
                for key in explanation.evidence
            }
        keys_by_layer: dict[str, list[str]] = {}
        for key in explanation.evidence:
            keys_by_layer.setdefault(explanation.layers[key].key, []).append(key)
        return {layer: self._draw_layer(explanation, keys, caption) for layer, keys in keys_by_layer.items()}

    def _draw_attacked(
        self,
        sheet: AttackSheet,
        explanation: Explanation,
        key: str,
        caption: Caption,
        attacked: AttackedExplanation,
    ) -> Tensor:
        """Draw one map of the clean and of the attacked images."""
        images = to_rgb(restore_pixels(replace(self.probe, images=attacked.images)), self._bands)
        return sheet.draw(
            (explanation, attacked.explanation),
            key,
            images,
            spearman(explanation.maps[key], attacked.explanation.maps[key]),
            Heading(
                self._write_title(explanation, key, _get_row_name(explanation, key)),
                self._encode_facts(explanation, [key], caption),
            ),
            scale=self.get_scale(key),
        )

    def _draw_layer(self, explanation: Explanation, keys: Sequence[str], caption: Caption) -> Tensor:
        """Draw all maps of one layer."""
        key, sheet = keys[0], self.sheet
        if explanation.region is not None and explanation.classes is not None:
            sheet = sheet.with_region(explanation.region, explanation.classes)
        heading = Heading(self._write_title(explanation, key), self._encode_facts(explanation, keys, caption))
        scores, logits = next(iter(explanation.scores.values()), None), explanation.logits
        if len(keys) == 1:
            evidence, map_status = explanation.evidence[key], explanation.map_status[key]
            scale, centers = self.get_scale(key), explanation.centers.get(key)
            return sheet.draw(evidence, map_status, logits, heading, scale=scale, scores=scores, centers=centers)
        rows = [self._build_row(explanation, key) for key in keys]
        has_row_scales = self.display.scale == "shared"
        return draw_rows(sheet, rows, logits, heading, has_row_scales=has_row_scales, scores=scores)

    def _build_row(self, explanation: Explanation, key: str) -> MapRow:
        name, score = _get_row_name(explanation, key), explanation.find_score_name(key)
        return MapRow(
            name or "image",
            explanation.evidence[key],
            explanation.map_status[key],
            self.get_scale(key),
            classes=explanation.explained.get(score) if score else None,
            sheet=self.references if name.endswith(REFERENCE) else None,
            centers=explanation.centers.get(key),
        )

    def _encode_facts(self, explanation: Explanation, keys: Sequence[str], caption: Caption) -> list[str | Tensor]:
        """Return the line below the title: the moment, the drift and the number of degenerate maps."""
        map_status, font = torch.cat([explanation.map_status[key] for key in keys]), self.sheet.font
        is_degenerate = (map_status > 0) & (map_status != MapStatus.NO_LABEL)
        facts: list[str | Tensor]
        if caption.is_first:
            facts = [font.encode_uncached(caption.moment), " · first snapshot"]
        else:
            suffix = "" if keys[0] == next(iter(explanation.evidence)) else f"/{keys[0]}"
            drift, error = caption.measured[f"drift{suffix}"], caption.measured[f"drift_error{suffix}"]
            facts = [
                font.encode_uncached(caption.moment),
                " · drift ",
                font.encode_number(drift, 1, 2),
                " ± ",
                font.encode_number(error, 1, 2),
            ]
        if explanation.region is not None and explanation.region.ndim == 3:
            facts.append(" · outlined: the pixels of the class")
        counts = font.encode([f"{i} of {len(map_status)} maps degenerate" for i in range(len(map_status) + 1)])
        # Indexing with a number on the device would wait for it; `index_select` does not.
        facts += [" · ", counts.index_select(0, is_degenerate.sum().reshape(1))[0]]
        return facts

    def _write_title(self, explanation: Explanation, key: str, row_name: str = "") -> str:
        """Return the title: the layer, the size of its maps, the methods and the target."""
        evidence, layer = explanation.evidence[key], explanation.layers[key].key
        grid = "×".join(map(str, evidence.shape[1:])) + " cells" * (evidence.ndim == 2)
        if len(self._methods) > 1 and not row_name:
            of_target = f", each{self._of_target}" if self._of_target else ""
            return f"{layer} · {grid} · {len(self._methods)} methods{of_target}"
        method = row_name if len(self._methods) > 1 else next(iter(self._methods))
        suffix = f" · {row_name}" if row_name and len(self._methods) == 1 else ""
        return f"{layer} · {grid} · {method}{self._of_target}{suffix}"

    def get_scale(self, key: str) -> Tensor | None:
        """Return the evidence that has the last color; None if every image is scaled by itself."""
        if self.display.scale == "image":
            return None
        largest = self._largest[key]
        return largest if self.display.scale == "shared" else torch.full_like(largest, self.display.scale)

    def add_to_film(self, explanation: Explanation, moment: str) -> None:
        """Add a snapshot to the film, if there is one."""
        if self.display.film:
            key = next(iter(explanation.evidence))
            name = moment.split(" · ")[0]
            self.film.centers = explanation.centers.get(key)
            self.film.add(Frame(name, explanation.evidence[key], explanation.map_status[key], explanation.logits))

    def draw_film(self) -> Tensor | None:
        """Draw the run so far, snapshots across and images down; return None if there is nothing to draw."""
        frames = self.film.frames
        if not self.display.film or not frames:
            return None
        key = next(iter(self._largest))
        method = next(iter(self._methods))
        return self.film.draw(
            self.probe,
            self.photos,
            self.class_names,
            self.display.colormap,
            title=f"{key} · {method}{self._of_target} · {frames[0].name} to {frames[-1].name}",
            scale=self.get_scale(key),
            interpolation=self.display.interpolation,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the largest evidence of each map and the film so far, on the CPU."""
        return {"largest": {key: value.cpu() for key, value in self._largest.items()}, "film": self.film.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        device = self.probe.images.device
        self._largest = {key: value.to(device) for key, value in state["largest"].items()}
        self.film.load_state_dict(state["film"], device)


def _get_row_name(explanation: Explanation, key: str) -> str:
    """Return the part of a map's key that follows the layer."""
    return key[len(explanation.layers[key].key) + 1 :]
