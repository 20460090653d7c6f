"""One probe, looked at again and again while a model trains: pictures and numbers, no Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.explanation import FLAWS, Explanation, Interpolation, NotExplainableError
from lightning_gradcam.pipeline import Plan
from lightning_gradcam.portions import Portions
from lightning_gradcam.probe import Pixels, Probe, Target
from lightning_gradcam.render.canvas import restore
from lightning_gradcam.render.film import Film, Frame
from lightning_gradcam.render.rows import Row, arrange_beside, draw_rows
from lightning_gradcam.render.sheet import Sheet
from lightning_gradcam.targets import TARGETS, ClassScore, check_classes, target_name
from lightning_gradcam.track import Track

Scale: TypeAlias = Literal["image", "shared"] | float


@dataclass(frozen=True)
class Display:
    """How looks are shown.

    Args:
        pixels: The normalisation of the images.
        names: What the classes are called; their numbers where None.
        colormap: A matplotlib colormap.
        scale: ``"image"``: every map from its minimum to its maximum. ``"shared"``: all from 0 to the largest evidence
            of any look so far. A number: all from 0 to that.
        film: How many looks the picture of the run shows; 0 for none.
        interpolation: How maps are enlarged, see `Explanation.heatmaps`.
    """

    pixels: Pixels | None = None
    names: Sequence[str] | None = None
    colormap: str = "inferno"
    scale: Scale = "image"
    film: int = 8
    interpolation: Interpolation = "bilinear"

    def check(self, classes: int | None, channels: int) -> None:
        """Raise a ValueError where names or normalisation do not fit a model with ``classes`` and its images."""
        if self.names is not None and classes and len(self.names) < classes:
            raise ValueError(f"Expected {classes} class names, one per class of the model, but got {len(self.names)}.")
        if self.pixels is not None and len(self.pixels.mean) not in (1, channels):
            raise ValueError(
                f"Expected a mean and std in `pixels` for each of {channels} channels, or one for all, but got "
                f"{len(self.pixels.mean)}."
            )


@dataclass(frozen=True)
class Look:
    """What one look found.

    Args:
        explanation: As drawn.
        numbers: 0-dimensional tensors on the probe's device.
        pictures: Per layer ``(3, height, width)`` uint8 on the probe's device; empty where another process draws.
    """

    explanation: Explanation
    numbers: Mapping[str, Tensor]
    pictures: Mapping[str, Tensor]


class Watch:
    """Explains the same images at every look and remembers what comparing needs.

    Args:
        probe: The images, on the model's device.
        portions: Where and how to look, and how many images at once.
        target: What is explained.
        display: How it is shown.
        draws: Whether pictures are made; of several processes one makes them.

    Raises:
        ValueError: The images are not finite, a label is not one of the model's classes, there are fewer names than
            classes, or the normalisation has another number of channels.
    """

    def __init__(
        self, probe: Probe, portions: Portions, target: Target, display: Display, *, draws: bool = True
    ) -> None:
        self.probe, self.portions, self.target, self.display = probe, portions, target, display
        plan = self.plan = portions.plan
        self.labels = probe.classes if plan.classes else None
        self._check()
        self.names = list(display.names or map(str, range(plan.classes or 1)))
        self.track = Track(target)
        self.film = Film(max(display.film, 2))
        self.photos: Tensor | None = None
        self.photos_note = "drawn by another process"
        self._shown = replace(probe, labels=self.labels)
        self._sheet: Sheet | None = None
        if draws:
            self.photos, self.photos_note = restore(probe.images, display.pixels or probe.pixels)
            several = arrange_beside(list(plan.methods), self.photos) if len(plan.methods) > 1 else None
            self._sheet = Sheet.of(
                self._shown, self.photos, self.names, display.colormap, several, display.interpolation
            )
        self._largest: dict[str, Tensor] = {}

    def _check(self) -> None:
        if not bool(self.probe.images.isfinite().all()):
            raise ValueError("Expected finite images in the probe, but some pixels are NaN or infinite.")
        if self.labels is not None and self.plan.classes:
            check_classes(self.labels, self.plan.classes)
        self.display.check(self.plan.classes, self.probe.images.shape[1])

    def look(self, model: nn.Module, moment: str) -> Look:
        """Explain, measure and draw.

        Args:
            model: With the weights of the moment.
            moment: What the picture calls it: "epoch 3 · step 120".
        """
        explanations = self.portions(model, self.probe, self.track.targets())
        drawn = explanations[0]
        first = self.track.previous is None
        # What one process could not measure, it would not compare with at the next look: its passes would differ.
        numbers = self.portions.ranks.all_do(lambda: self.track.measure(explanations, self.labels))
        shown: dict[str, list[str]] = {}
        for key in drawn.evidence:
            shown.setdefault(drawn.layers[key].key, []).append(key)  # a picture for each layer, of all methods
        pictures = {layer: self._draw(drawn, keys, moment, first) for layer, keys in shown.items() if self._sheet}
        if self.display.film:
            key = next(iter(drawn.evidence))
            self.film.add(Frame(moment.split(" · ")[0], drawn.evidence[key], drawn.flaws[key], drawn.logits))
        return Look(drawn, numbers, pictures)

    def _draw(self, drawn: Explanation, keys: Sequence[str], moment: str, first: bool) -> Tensor:
        assert self._sheet is not None
        key, sheet = keys[0], self._sheet
        flaws = torch.cat([drawn.flaws[each] for each in keys])
        suffix = "" if key == next(iter(drawn.evidence)) else f"/{key}"
        drift, error = self.track.found[f"drift{suffix}"], self.track.found[f"drift_error{suffix}"]
        facts: list[str | Tensor] = [f"{moment} · first look"]
        if not first:
            facts = [f"{moment} · drift ", sheet.font.fixed(drift, 1, 2), " ± ", sheet.font.fixed(error, 1, 2)]
        counts = sheet.font.encode([f" · {i} of {len(flaws)} maps degenerate" for i in range(len(flaws) + 1)])
        # Plain indexing by a number on the device would wait for it.
        facts.append(counts.index_select(0, (flaws > 0).sum().reshape(1))[0])
        for each in keys:
            magnitude = drawn.evidence[each].relu().nan_to_num(0, 0, 0).max()
            self._largest[each] = torch.maximum(self._largest.get(each, magnitude), magnitude)
        title = self._title(drawn, key)
        if len(self.plan.methods) == 1:
            return sheet.draw(
                drawn.evidence[key], flaws, drawn.logits, title=title, facts=facts, scale=self._scale(key)
            )
        end = len(drawn.layers[key].key) + 1
        rows = [Row(each[end:], drawn.evidence[each], drawn.flaws[each], self._scale(each)) for each in keys]
        own = self.display.scale == "shared"
        return draw_rows(sheet, rows, drawn.logits, title=title, facts=facts, own_scales=own)

    def _scale(self, key: str) -> Tensor | None:
        if self.display.scale == "image":
            return None
        largest = self._largest[key]
        return largest if self.display.scale == "shared" else torch.full_like(largest, self.display.scale)

    def _title(self, drawn: Explanation, key: str) -> str:
        layer = drawn.layers[key].key
        grid = "×".join(map(str, drawn.evidence[key].shape[1:])) + " cells" * (drawn.evidence[key].ndim == 2)
        count = len(self.plan.methods)
        method = f"{count} methods, each" if count > 1 else next(iter(self.plan.methods))
        return f"{layer} · {grid} · {method} of the {target_name(self.target)}"

    def draw_film(self) -> Tensor | None:
        """The picture of the run so far, looks across and images down; None where there is none to draw."""
        if self.photos is None or not self.display.film or not self.film.frames:
            return None
        key = next(iter(self._largest))
        first, last = self.film.frames[0].name, self.film.frames[-1].name
        title = f"{key} · {next(iter(self.plan.methods))} of the {target_name(self.target)} · {first} to {last}"
        return self.film.draw(
            self._shown,
            self.photos,
            self.names,
            self.display.colormap,
            title=title,
            scale=self._scale(key),
            interpolation=self.display.interpolation,
        )

    def complaints(self, look: Look) -> Iterator[str]:
        """A sentence for everything that a look shows to be wrong. (Waits for the device.)"""
        logits = look.explanation.logits
        if logits.numel() and not bool(logits.isfinite().all()):
            yield (
                "The model puts out NaN or infinite numbers for the probe, so its weights or its activations are not "
                "finite: lower the learning rate, clip gradients, or look for the first bad step with "
                "`Trainer(detect_anomaly=True)`. Looks go on, and name these maps."
            )
        elif self.track.looks > 2:  # an untrained model may well have nothing to say
            for key, flaws in look.explanation.flaws.items():
                codes = set(flaws.tolist())
                if 0 not in codes:
                    why = " and ".join(sorted(str(FLAWS[code]) for code in codes))
                    yield f"All maps of layer {key!r} are degenerate: {why}. Another layer may serve: `layers=`."

    @property
    def signature(self) -> dict[str, Any]:
        """What looks must have in common to be compared."""
        layers = [layer.key for layer in self.plan.layers]
        target: list[Any] = [target_name(self.target)]
        if isinstance(self.target, ClassScore) and self.target is not TARGETS["predicted"]:
            target += self.target.choose(self.probe.images.new_empty(1, 1), self.probe).tolist()
        how = {"methods": list(self.plan.methods), "fuse": self.plan.fuse, "flips": self.plan.flips}
        return {"layers": layers, **how, "target": target}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if never interrupted: plain containers of CPU tensors."""
        return {
            "signature": self.signature,
            "track": self.track.state_dict(),
            "largest": {key: value.cpu() for key, value in self._largest.items()},
            "film": self.film.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        device = self.probe.images.device
        self.track.load_state_dict(state["track"], device)
        self._largest = {key: value.to(device) for key, value in state["largest"].items()}
        self.film.load_state_dict(state["film"], device)


def choose_target(target: Target | None, probe: Probe, plan: Plan) -> Target:
    """``target``, or where it is None ("auto") the label where there is one, else the predicted class."""
    if target is not None:
        if isinstance(target, ClassScore) and not plan.classes:
            raise NotExplainableError("The model returns no logits (N, classes): pass `target=` or `forward=`.")
        return target
    return TARGETS["label" if probe.classes is not None and plan.classes else "predicted"]
