"""One probe, looked at again and again while a model trains: pictures and numbers, no Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.explanation import FLAWS, Explanation, NotExplainableError
from lightning_gradcam.pipeline import Plan
from lightning_gradcam.probe import Pixels, Probe, Target
from lightning_gradcam.render.film import Film, Frame
from lightning_gradcam.render.photos import restore_photos
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
    """

    pixels: Pixels | None = None
    names: Sequence[str] | None = None
    colormap: str = "inferno"
    scale: Scale = "image"
    film: int = 8


@dataclass(frozen=True)
class Look:
    """What one look found.

    Args:
        explanation: As drawn.
        numbers: 0-dimensional tensors on the probe's device.
        pictures: Per layer key ``(3, height, width)`` uint8 on the probe's device; empty where images cannot be drawn.
    """

    explanation: Explanation
    numbers: Mapping[str, Tensor]
    pictures: Mapping[str, Tensor]


class Watch:
    """Explains the same images at every look and remembers what comparing needs.

    Args:
        probe: The images, on the model's device.
        plan: Where and how to look.
        target: What is explained.
        display: How it is shown.

    Raises:
        ValueError: A label is not one of the model's classes, or there are fewer names than classes.
    """

    def __init__(self, probe: Probe, plan: Plan, target: Target, display: Display) -> None:
        self.probe, self.plan, self.target, self.display = probe, plan, target, display
        self.labels = probe.classes if plan.classes else None
        if self.labels is not None and plan.classes:
            check_classes(self.labels, plan.classes)
        if display.names is not None and plan.classes and len(display.names) < plan.classes:
            raise ValueError(
                f"Expected {plan.classes} class names, one per class of the model, but got {len(display.names)}."
            )
        self.names = list(display.names or map(str, range(plan.classes or 1)))
        self.track = Track(target)
        self.film = Film(max(display.film, 2))
        self.photos: Tensor | None = None
        self.photos_note = f"{len(probe.size)}-dimensional images are not drawn; the numbers are logged"
        self._sheet: Sheet | None = None
        if len(probe.size) == 2:
            self.photos, self.photos_note = restore_photos(probe.images, display.pixels or probe.pixels)
            self._sheet = Sheet.of(probe, self.photos, self.names, display.colormap)
        self._largest = probe.images.new_zeros((), dtype=torch.float32)

    def look(self, model: nn.Module, moment: str) -> Look:
        """Explain, measure and draw.

        Args:
            model: With the weights of the moment.
            moment: What the picture calls it: "epoch 3 · step 120".
        """
        explanations = self.plan(model, self.probe, self.track.targets())
        drawn = explanations[0]
        first = self.track.previous is None
        numbers = self.track.measure(explanations, self.labels)
        pictures = {key: self._draw(drawn, key, moment, first) for key in drawn.evidence if self._sheet}
        if self.display.film:
            key = next(iter(drawn.evidence))
            self.film.add(Frame(moment.split(" · ")[0], drawn.evidence[key], drawn.flaws[key], drawn.logits))
        return Look(drawn, {k: v for k, v in numbers.items() if not k.startswith("drift_error")}, pictures)

    def _draw(self, drawn: Explanation, key: str, moment: str, first: bool) -> Tensor:
        assert self._sheet is not None
        evidence, flaws = drawn.evidence[key], drawn.flaws[key]
        sheet = self._sheet
        suffix = "" if key == next(iter(drawn.evidence)) else f"/{key}"
        drift, error = self.track.last[f"drift{suffix}"], self.track.last[f"drift_error{suffix}"]
        facts: list[str | Tensor] = [f"{moment} · first look"]
        if not first:
            facts = [f"{moment} · drift ", sheet.font.fixed(drift, 1, 2), " ± ", sheet.font.fixed(error, 1, 2)]
        counts = sheet.font.encode([f" · {i} of {len(flaws)} maps degenerate" for i in range(len(flaws) + 1)])
        facts.append(counts[(flaws > 0).sum()])
        return sheet.draw(
            evidence, flaws, drawn.logits, title=self._title(drawn, key), facts=facts, scale=self._scale(evidence)
        )

    def _scale(self, evidence: Tensor) -> Tensor | None:
        if self.display.scale == "image":
            return None
        if self.display.scale == "shared":
            self._largest = torch.maximum(self._largest, evidence.relu().nan_to_num(0, 0, 0).max())
            return self._largest
        return torch.full_like(self._largest, self.display.scale)

    def _title(self, drawn: Explanation, key: str) -> str:
        grid = "×".join(map(str, drawn.evidence[key].shape[1:]))
        method = (
            key.removeprefix(f"{drawn.layers[key].key}/")
            if len(self.plan.methods) > 1
            else next(iter(self.plan.methods))
        )
        return f"{drawn.layers[key].key} · {grid} · {method} of the {target_name(self.target)}"

    def draw_film(self) -> Tensor | None:
        """The picture of the run so far, looks across and images down; None where nothing can be drawn."""
        if self.photos is None or not self.display.film or not self.film.frames:
            return None
        layer = self.plan.layers[0].key
        first, last = self.film.frames[0].name, self.film.frames[-1].name
        title = f"{layer} · {next(iter(self.plan.methods))} of the {target_name(self.target)} · {first} to {last}"
        scale = self.display.scale != "image"
        return self.film.draw(
            self.probe, self.photos, self.names, self.display.colormap, title=title, common_scale=scale
        )

    def describe(self) -> dict[str, str]:
        """What was chosen, in words."""
        labelled = "with labels" if self.labels is not None else "without labels"
        shapes = {s.name: s for s in self.plan.shapes}
        kinds = {layer.key: shapes[layer.name].kind for layer in self.plan.layers if layer.name in shapes}
        grids = {
            layer.key: "×".join(map(str, shapes[layer.name].grid or ()))
            for layer in self.plan.layers
            if layer.name in shapes
        }
        said = {"probe": f"{len(self.probe)} images of {tuple(self.probe.images.shape[1:])}, {labelled}"}
        for layer in self.plan.layers:
            about = f" ({kinds[layer.key]}, map {grids[layer.key]})" if layer.key in kinds else ""
            said[f"layer {layer.key}"] = f"{layer.reason or 'given'}{about}"
        said["method"] = f"{', '.join(self.plan.methods)} of the {target_name(self.target)}"
        said["picture"] = self.photos_note
        return said

    def complaint(self, look: Look) -> str:
        """A sentence where a look shows that something is wrong with the model, else empty. (Waits for the device.)"""
        logits = look.explanation.logits
        key, flaws = next(iter(look.explanation.flaws.items()))
        if logits.numel() and not bool(logits.isfinite().all()):
            return (
                "The model puts out NaN or infinite numbers for the probe, so its weights or its activations are not "
                "finite: lower the learning rate, clip gradients, or look for the first bad step with "
                "`Trainer(detect_anomaly=True)`. Looks go on, and name these maps."
            )
        codes = set(flaws.tolist())
        if 0 not in codes and len(codes) == 1:
            return (
                f"All maps of layer {key!r} are degenerate: {FLAWS[codes.pop()]}. Another layer may serve: `layers=`."
            )
        return ""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if never interrupted: plain containers of CPU tensors."""
        return {
            "track": self.track.state_dict(),
            "largest": self._largest.cpu(),
            "film": {
                "seen": self.film.seen,
                "stride": self.film.stride,
                "frames": [
                    {"name": f.name, "evidence": f.evidence.cpu(), "flaws": f.flaws.cpu(), "logits": f.logits.cpu()}
                    for f in self.film.frames
                ],
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        device = self.probe.images.device
        self.track.load_state_dict(state["track"], device)
        self._largest = state["largest"].to(device)
        film = state["film"]
        self.film.seen, self.film.stride = film["seen"], film["stride"]
        self.film.frames = [
            Frame(f["name"], f["evidence"].to(device), f["flaws"].to(device), f["logits"].to(device))
            for f in film["frames"]
        ]


def choose_target(target: Target | None, probe: Probe, plan: Plan) -> Target:
    """``target``, or where it is None ("auto") the label where there is one, else the predicted class."""
    if target is not None:
        if isinstance(target, ClassScore) and not plan.classes:
            raise NotExplainableError("The model returns no logits (N, classes): pass `target=` or `forward=`.")
        return target
    return TARGETS["label" if probe.classes is not None and plan.classes else "predicted"]
