"""The pictures of one probe, look after look, and what they have in common: photos, colours, scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import REFERENCE, UNASKED, Explanation
from lightning_gradcam.methods.resolve import describe_target
from lightning_gradcam.monitor.adversarial import AttackedExplanation
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.render.attack_sheet import AttackSheet
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.filmstrip import Film
from lightning_gradcam.render.legend import Heading
from lightning_gradcam.render.multi_map_sheet import MapRow, arrange_with_names, draw_rows
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.stability import spearman
from lightning_gradcam.targets import split_target, target_name
from lightning_gradcam.targets.embeddings import compares_images


def name_rows(plan: Explainer, target: Target, probe: Probe) -> list[str]:
    """What stands beside the overlays of an image: methods, scores and sides, as far as there are several."""
    sides = ["image", REFERENCE] if compares_images(target, probe) else [""]
    methods = list(plan.methods) if len(plan.methods) > 1 else [""]
    ways = product(methods, split_target(target), sides)
    return ["/".join(name for name in way if name) for way in ways]


class FigureBuilder:
    """Draws looks, and remembers what the next ones need: the largest evidence so far.

    Args:
        probe: The images; their labels are shown.
        names: What the classes are called, one for each.
        plan: How they are explained.
        target: What is explained.
        display: How it is shown.
        attack: Whether attacked images are shown beside the clean ones, where they are photos.
    """

    def __init__(
        self, probe: Probe, names: Sequence[str], plan: Explainer, target: Target, display: DisplayConfig, attack: bool
    ) -> None:
        self.probe, self.names, self.plan, self.target, self.display = probe, names, plan, target, display
        self.photos, self.note = restore_images(probe.images, display.pixels or probe.pixels)
        self.duel: AttackSheet | None = None
        if attack and len(probe.size) == 2:
            self.duel = AttackSheet.from_probe(probe, self.photos, names, display.colormap, display.interpolation)
        names_of_rows = name_rows(plan, target, probe)
        several = arrange_with_names(names_of_rows, self.photos) if len(names_of_rows) > 1 else None
        self.sheet = Sheet.from_probe(probe, self.photos, names, display.colormap, several, display.interpolation)
        self.references: Sheet | None = None
        if compares_images(target, probe) and probe.references is not None:
            theirs = restore_images(probe.references, display.pixels or probe.pixels)[0]
            self.references = Sheet.from_probe(probe, theirs, names, display.colormap, several, display.interpolation)
        self._largest: dict[str, Tensor] = {}

    def draw(
        self,
        drawn: Explanation,
        found: Mapping[str, Tensor],
        moment: str,
        first: bool,
        attacked: AttackedExplanation | None,
    ) -> dict[str, Tensor]:
        """A picture ``(3, height, width)`` uint8 for each layer, of all its methods; with an attack, for each map.

        Args:
            drawn: What the look found.
            found: Its numbers, see `DriftTracker.found`.
            moment: What the picture calls it: "epoch 3 · step 120".
            first: Whether there is no look to compare with.
            attacked: The same of attacked images.
        """
        for key, evidence in drawn.evidence.items():
            magnitude = evidence.relu().nan_to_num(0, 0, 0).max()
            self._largest[key] = torch.maximum(self._largest.get(key, magnitude), magnitude)
        if attacked is not None and self.duel is not None:
            return {key: self._draw_duel(drawn, key, found, moment, first, attacked) for key in drawn.evidence}
        shown: dict[str, list[str]] = {}
        for key in drawn.evidence:
            shown.setdefault(drawn.layers[key].key, []).append(key)
        return {layer: self._draw_sheet(drawn, keys, found, moment, first) for layer, keys in shown.items()}

    def _draw_duel(
        self,
        drawn: Explanation,
        key: str,
        found: Mapping[str, Tensor],
        moment: str,
        first: bool,
        attacked: AttackedExplanation,
    ) -> Tensor:
        assert self.duel is not None
        facts = self._facts(drawn, [key], found, moment, first)
        pixels = self.display.pixels or self.probe.pixels
        images = attacked.images if pixels is None else pixels.restore(attacked.images)
        title = self._title(drawn, key, key[len(drawn.layers[key].key) + 1 :])
        both = (drawn, attacked.explanation)
        agree = spearman(drawn.maps[key], attacked.explanation.maps[key])
        return self.duel.draw(both, key, images, agree, Heading(title, facts), scale=self.scale(key))

    def _draw_sheet(
        self, drawn: Explanation, keys: Sequence[str], found: Mapping[str, Tensor], moment: str, first: bool
    ) -> Tensor:
        key, sheet = keys[0], self.sheet
        if drawn.region is not None and drawn.classes is not None:
            sheet = sheet.with_region(drawn.region, drawn.classes)
        heading = Heading(self._title(drawn, key), self._facts(drawn, keys, found, moment, first))
        scores, logits = next(iter(drawn.scores.values()), None), drawn.logits
        if len(keys) == 1:
            evidence, map_status = drawn.evidence[key], drawn.map_status[key]
            return sheet.draw(evidence, map_status, logits, heading, scale=self.scale(key), scores=scores)
        rows = [self._row(drawn, each) for each in keys]
        has_row_scales = self.display.scale == "shared"
        return draw_rows(sheet, rows, logits, heading, has_row_scales=has_row_scales, scores=scores)

    def _row(self, drawn: Explanation, key: str) -> MapRow:
        name, part = key[len(drawn.layers[key].key) + 1 :], drawn.part(key)
        return MapRow(
            name or "image",
            drawn.evidence[key],
            drawn.map_status[key],
            self.scale(key),
            classes=drawn.explained.get(part) if part else None,
            sheet=self.references if name.endswith(REFERENCE) else None,
        )

    def _facts(
        self, drawn: Explanation, keys: Sequence[str], found: Mapping[str, Tensor], moment: str, first: bool
    ) -> list[str | Tensor]:
        map_status, font = torch.cat([drawn.map_status[each] for each in keys]), self.sheet.font
        degenerate = (map_status > 0) & (map_status != UNASKED)
        suffix = "" if keys[0] == next(iter(drawn.evidence)) else f"/{keys[0]}"
        facts: list[str | Tensor]
        if first:
            facts = [font.encode_uncached(f"{moment} · first look")]
        else:
            drift, error = found[f"drift{suffix}"], found[f"drift_error{suffix}"]
            drift_codes, error_codes = (font.encode_number(value, 1, 2) for value in (drift, error))
            facts = [font.encode_uncached(f"{moment} · drift "), drift_codes, " ± ", error_codes]
        if drawn.region is not None and drawn.region.ndim == 3:
            facts.append(" · outlined: the pixels of the class")
        counts = font.encode([f" · {i} of {len(map_status)} maps degenerate" for i in range(len(map_status) + 1)])
        # Plain indexing by a number on the device would wait for it.
        facts.append(counts.index_select(0, degenerate.sum().reshape(1))[0])
        return facts

    def _title(self, drawn: Explanation, key: str, row: str = "") -> str:
        layer = drawn.layers[key].key
        grid = "×".join(map(str, drawn.evidence[key].shape[1:])) + " cells" * (drawn.evidence[key].ndim == 2)
        methods, of_what = self.plan.methods, describe_target(self.plan.methods, target_name(self.target))
        if len(methods) > 1 and not row:
            return f"{layer} · {grid} · {len(methods)} methods" + (f", each{of_what}" if of_what else "")
        method = row if len(methods) > 1 else next(iter(methods))
        which = f" · {row}" if row and len(methods) == 1 else ""
        return f"{layer} · {grid} · {method}{of_what}{which}"

    def scale(self, key: str) -> Tensor | None:
        """The evidence that has the last colour; None where every image is scaled by itself."""
        if self.display.scale == "image":
            return None
        largest = self._largest[key]
        return largest if self.display.scale == "shared" else torch.full_like(largest, self.display.scale)

    def draw_film(self, film: Film) -> Tensor | None:
        """The picture of the run so far, looks across and images down; None where there is none to draw."""
        if not self.display.film or not film.frames:
            return None
        key = next(iter(self._largest))
        first, last = film.frames[0].name, film.frames[-1].name
        of_what = describe_target(self.plan.methods, target_name(self.target))
        title = f"{key} · {next(iter(self.plan.methods))}{of_what} · {first} to {last}"
        return film.draw(
            self.probe,
            self.photos,
            self.names,
            self.display.colormap,
            title=title,
            scale=self.scale(key),
            interpolation=self.display.interpolation,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The largest evidence of each map so far, on the CPU."""
        return {key: value.cpu() for key, value in self._largest.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        self._largest = {key: value.to(self.probe.images.device) for key, value in state.items()}
