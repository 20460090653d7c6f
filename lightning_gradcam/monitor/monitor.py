"""One probe, looked at again and again while a model trains: pictures and numbers, no Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from lightning_gradcam.attacks import Attack, check_range, restore_pixels
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.monitor.adversarial import (
    AttackedExplanation,
    freeze_to_clean,
    measure_attack,
    with_attack_labels,
)
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.figures import FigureBuilder
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.stability import mean_and_error, spearman
from lightning_gradcam.stability.alarm import DriftAlarm
from lightning_gradcam.stability.drift import DriftTracker
from lightning_gradcam.targets import TARGETS, check_classes, is_dynamic, list_class_scores, target_name, with_labels


@dataclass(frozen=True)
class Snapshot:
    """What one look found.

    Args:
        explanation: As drawn.
        numbers: 0-dimensional tensors on the probe's device.
        pictures: Per layer ``(3, height, width)`` uint8 on the probe's device; empty where another process draws.
        attacked: What was found in attacked images, where there was an attack.
        moment: What pictures call it.
    """

    explanation: Explanation
    numbers: Mapping[str, Tensor]
    pictures: Mapping[str, Tensor]
    attacked: AttackedExplanation | None = None
    moment: str = ""


class ProbeMonitor:
    """Explains the same images at every look and remembers what comparing needs.

    Args:
        probe: The images, on the model's device.
        portions: Where and how to look, and how many images at once.
        target: What is explained.
        display: How it is shown.
        draws: Whether pictures are made; of several processes one makes them.
        attack: What the images are attacked with, where they are; see `pairs.agreement`.
        reference_maps: Earlier maps of the same images by key, a baseline's, where those are compared with.

    Raises:
        ValueError: The images are not finite, a label is not one of the model's classes, there are fewer names than
            classes, or the normalisation has another number of channels; for an attack, they are not pixels in [0, 1].
    """

    def __init__(
        self,
        probe: Probe,
        portions: ShardedExplainer,
        target: Target,
        display: DisplayConfig,
        *,
        draws: bool = True,
        attack: Attack | None = None,
        reference_maps: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.probe, self.portions, self.target, self.display = probe, portions, target, display
        plan = self.plan = portions.plan
        self.labels = probe.classes if plan.classes else None
        self.multilabel = probe.multilabel and probe.labels is not None and probe.labels.shape[1] == plan.classes
        self.attack, self.alarm = attack, DriftAlarm()
        self._near: dict[str, Tensor] = {}  # similarities to the baseline's maps
        self.reference_maps = {k: maps.to(probe.images.device) for k, maps in (reference_maps or {}).items()}
        self._check()
        self.names = list(display.names or map(str, range(plan.named or 1)))
        self.track = DriftTracker(target, self.multilabel)
        self.film = Film(max(display.film, 2))
        self._shown = replace(
            probe, labels=probe.labels if self.multilabel else self.labels, pixels=display.pixels or probe.pixels
        )
        self.figures = (
            FigureBuilder(self._shown, self.names, plan, target, display, attack is not None) if draws else None
        )

    def _check(self) -> None:
        if not bool(self.probe.images.isfinite().all()):
            raise ValueError("Expected finite images in the probe, but some pixels are NaN or infinite.")
        if self.labels is not None and self.plan.classes:
            check_classes(self.labels, self.plan.classes)
        self.display.check(self.plan.classes, self.probe.images.shape[1])
        grids = {shape.name: shape.grid for shape in self.plan.shapes}
        for layer in self.plan.layers:
            kept = next((maps for key, maps in self.reference_maps.items() if key.split("/")[0] == layer.key), None)
            if kept is not None and grids.get(layer.name, tuple(kept.shape[1:])) != tuple(kept.shape[1:]):
                raise ValueError(
                    f"Expected maps of {tuple(kept.shape[1:])} at layer {layer.key!r}, as in the baseline, but this "
                    f"model has {grids[layer.name]} there: record the baseline anew."
                )
        if self.attack is not None:
            check_attackable(self.plan)
            check_range(restore_pixels(replace(self.probe, pixels=self.display.pixels or self.probe.pixels)))

    def look(self, model: nn.Module, moment: str) -> Snapshot:
        """Explain, attack where that is wanted, measure and draw.

        Args:
            model: With the weights of the moment.
            moment: What the picture calls it: "epoch 3 · step 120".
        """
        explanations = self.portions(model, self.probe, self.track.targets())
        drawn, attacked = explanations[0], None
        if self.attack is not None:
            target = freeze_to_clean(self.target, drawn)
            attacked = self.portions.attacked(model, with_attack_labels(self._shown, drawn), target, self.attack)
        first = self.track.previous is None

        def measure() -> Mapping[str, Tensor]:
            beside = measure_attack(drawn, attacked.explanation, self.labels) if attacked else {}
            beside |= self._beside_baseline(drawn)
            return self.track.measure(explanations, self.labels, beside)

        # What one process could not measure, it would not compare with at the next look: its passes would differ.
        numbers = self.portions.ranks.run_on_all_ranks(measure)
        pictures = self.figures.draw(drawn, self.track.found, moment, first, attacked) if self.figures else {}
        if self.display.film:
            key = next(iter(drawn.evidence))
            self.film.add(Frame(moment.split(" · ")[0], drawn.evidence[key], drawn.map_status[key], drawn.logits))
        return Snapshot(drawn, numbers, pictures, attacked, moment)

    def _beside_baseline(self, drawn: Explanation) -> dict[str, Tensor]:
        numbers = {}
        for i, (key, maps) in enumerate(drawn.maps.items()):
            if key in self.reference_maps:
                suffix = f"/{key}" if i else ""
                self._near[key] = spearman(self.reference_maps[key], maps)
                numbers[f"baseline_similarity{suffix}"] = mean_and_error(self._near[key])[0]
        return numbers

    def draw_film(self) -> Tensor | None:
        """The picture of the run so far, looks across and images down; None where there is none to draw."""
        return self.figures.draw_film(self.film) if self.figures else None

    def complaints(self, look: Snapshot) -> Iterator[str]:
        """A sentence for everything that a look shows to be wrong. (Waits for the device.)"""
        logits = look.explanation.logits
        if logits.numel() and not bool(logits.isfinite().all()):
            yield (
                "The model puts out NaN or infinite numbers for the probe, so its weights or its activations are not "
                "finite: lower the learning rate, clip gradients, or look for the first bad step with "
                "`Trainer(detect_anomaly=True)`. Looks go on, and name these maps."
            )
        elif self.track.looks > 2:  # an untrained model may well have nothing to say
            for key, map_status in look.explanation.map_status.items():
                codes = [code for code in map_status.tolist() if code != MapStatus.NO_LABEL]
                if 0 not in codes and 2 * len(codes) > len(map_status):  # of few images, that may well be
                    why = " and ".join(sorted(str(MapStatus(code).text) for code in set(codes)))
                    yield f"All maps of layer {key!r} are degenerate: {why}. Another layer may serve: `layers=`."
        yield from self._sudden(look)

    def _sudden(self, look: Snapshot) -> Iterator[str]:
        compared = {
            f"with the previous look's at layer {key!r}": (key, values) for key, values in self.track.agree.items()
        }
        for key, values in self._near.items():
            compared[f"with the baseline's at layer {key!r}"] = key, values
        for what, (key, values) in compared.items():
            said = self.alarm.notice(what, values)
            if said:
                picture = look.explanation.layers[key].key
                yield (
                    f"{look.moment}: maps compared {what} {said}. See the picture {picture!r}. A step of the learning "
                    "rate or of the data explains that; else something has changed in what the model looks at."
                )

    @property
    def signature(self) -> dict[str, Any]:
        """What looks must have in common to be compared."""
        layers = [layer.key for layer in self.plan.layers]
        target: list[Any] = [target_name(self.target)]
        if not is_dynamic(self.target) and not (self.plan.answer == "pixels" and self.probe.has_masks):
            logits = self.probe.images.new_empty(len(self.probe), self.plan.classes or 1)
            target += [part.choose(logits, self.probe).tolist() for part in list_class_scores(self.target)]
        how = {"methods": list(self.plan.methods), "fuse": self.plan.fuse, "flips": self.plan.flips}
        return {"layers": layers, **how, "target": target}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if never interrupted: plain containers of CPU tensors."""
        return {
            "signature": self.signature,
            "track": self.track.state_dict(),
            "largest": self.figures.state_dict() if self.figures else {},
            "film": self.film.state_dict(),
            "alarm": self.alarm.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        device = self.probe.images.device
        self.track.load_state_dict(state["track"], device)
        if self.figures:
            self.figures.load_state_dict(state["largest"])
        self.film.load_state_dict(state["film"], device)
        self.alarm.load_state_dict(state.get("alarm", {"seen": {}}))


def check_attackable(plan: Explainer) -> None:
    """Raise a ValueError where the model has no logits, so that an attack has no loss to make larger."""
    if not plan.classes:
        raise ValueError("Expected a model that returns logits (N, classes) for `attack=`, but it has none.")


def resolve_target(target: Target | None, probe: Probe, plan: Explainer) -> Target:
    """``target``, or where it is None ("auto") the label where there is one, else the predicted class."""
    if target is None:
        suits = probe.multilabel and probe.labels is not None and probe.labels.shape[1] == plan.classes
        masks = probe.has_masks and plan.answer == "pixels"
        labelled = (probe.classes is not None and plan.answer != "other") or suits or masks
        target = TARGETS["label" if labelled else "predicted"]
    elif list_class_scores(target) and plan.answer == "other":
        raise NotExplainableError("The model returns no logits (N, classes): pass `target=` or `forward=`.")
    return with_labels(target, probe)
