"""A monitor of one probe, which it explains again and again while a model trains, without Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from lightning_gradcam.attacks import Attack
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.monitor.adversarial import (
    AttackedExplanation,
    freeze_to_clean,
    measure_attack,
    with_attack_labels,
)
from lightning_gradcam.monitor.baseline_maps import BaselineMaps
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.figures import Caption, FigureBuilder
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.stability.alarm import DriftAlarm
from lightning_gradcam.stability.drift import DriftTracker
from lightning_gradcam.targets import is_dynamic, list_class_scores, target_name, with_labels


@dataclass(frozen=True)
class Snapshot:
    """The results of explaining the probe once.

    Args:
        explanation: The explanation that the figures show.
        numbers: 0-dimensional tensors on the probe's device, by curve.
        figures: Per layer ``(3, height, width)`` uint8 on the probe's device; empty if another process draws.
        attacked: The attacked images and their explanation, if there is an attack.
        moment: The title of the snapshot: "epoch 3 · step 120".
    """

    explanation: Explanation
    numbers: Mapping[str, Tensor]
    figures: Mapping[str, Tensor]
    attacked: AttackedExplanation | None = None
    moment: str = ""


class ProbeMonitor:
    """Explains the same images in every snapshot, and measures how their maps change.

    Args:
        probe: The images, on the model's device, with their normalization if it is known.
        sharded_explainer: The prepared explainer, and the processes that share its work.
        target: The score that is explained.
        display: Options of the figures.
        class_names: The names of the classes; their numbers if None.
        draws: Whether this process draws the figures; only one of several does.
        attack: An attack on the images; None for no attack.
        baseline_maps: A baseline's maps of the same images by key, to compare with.
    """

    def __init__(
        self,
        probe: Probe,
        sharded_explainer: ShardedExplainer,
        target: Target,
        display: DisplayConfig,
        *,
        class_names: Sequence[str] | None = None,
        draws: bool = True,
        attack: Attack | None = None,
        baseline_maps: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.probe, self.sharded_explainer, self.target, self.attack = probe, sharded_explainer, target, attack
        explainer = sharded_explainer.explainer
        self.labels = probe.classes if explainer.output_kind.num_logits else None
        self.is_multilabel = has_multilabels(probe, explainer)
        self.class_names = list(class_names or map(str, range(explainer.output_kind.num_classes or 1)))
        self.tracker, self.alarm = DriftTracker(target, self.is_multilabel), DriftAlarm()
        self.baseline = BaselineMaps({k: m.to(probe.images.device) for k, m in (baseline_maps or {}).items()})
        self.figures: FigureBuilder | None = None
        if draws:
            # Figures show labels only if they are classes of the model.
            drawn = replace(probe, labels=probe.labels if self.is_multilabel else self.labels)
            self.figures = FigureBuilder(drawn, self.class_names, explainer, target, display, attack is not None)

    @property
    def explainer(self) -> Explainer:
        """The prepared explainer."""
        return self.sharded_explainer.explainer

    def take_snapshot(self, model: nn.Module, moment: str) -> Snapshot:
        """Explain the probe, attack it if there is an attack, measure and draw.

        Args:
            model: The model with its current weights.
            moment: The title of the snapshot in figures: "epoch 3 · step 120".
        """
        explanations = self.sharded_explainer(model, self.probe, self.tracker.list_targets())
        clean, attacked = explanations[0], None
        if self.attack is not None:
            target = freeze_to_clean(self.target, clean)
            attack_probe = with_attack_labels(self.probe, clean)
            attacked = self.sharded_explainer.explain_attacked(model, attack_probe, target, self.attack)
        is_first = self.tracker.previous is None

        def measure() -> Mapping[str, Tensor]:
            further = measure_attack(clean, attacked.explanation, self.labels) if attacked else {}
            further |= self.baseline.measure(clean)
            return self.tracker.measure(explanations, self.labels, further)

        # A process that failed to measure would compare with other maps in the next snapshot, and run other passes.
        numbers = self.sharded_explainer.ranks.run_on_all_ranks(measure)
        figures: Mapping[str, Tensor] = {}
        if self.figures:
            figures = self.figures.draw(clean, Caption(moment, self.tracker.measured, is_first), attacked)
            self.figures.add_to_film(clean, moment)
        return Snapshot(clean, numbers, figures, attacked, moment)

    def draw_film(self) -> Tensor | None:
        """Draw the run so far, snapshots across and images down; return None if there is nothing to draw."""
        return self.figures.draw_film() if self.figures else None

    def find_problems(self, snapshot: Snapshot) -> Iterator[str]:
        """Yield a message for each problem that a snapshot shows. (Waits for the device.)"""
        logits = snapshot.explanation.logits
        if logits.numel() and not bool(logits.isfinite().all()):
            yield (
                "The model returns NaN or infinite values for the probe, so its weights or its activations are not "
                "finite. Lower the learning rate, clip gradients, or find the first bad step with "
                "`Trainer(detect_anomaly=True)`. Snapshots continue, and their figures mark these maps."
            )
        elif self.tracker.snapshots > 2:  # the maps of an untrained model may well be empty
            yield from find_degenerate_layers(snapshot.explanation)
        yield from self._find_sudden_drift(snapshot)

    def _find_sudden_drift(self, snapshot: Snapshot) -> Iterator[str]:
        """Yield a message for each layer whose maps suddenly changed more than in earlier snapshots."""
        # The alarm's keys are stored in checkpoints.
        compared = [
            (f"with the previous look's at layer {key!r}", key, "the previous snapshot's", similarities)
            for key, similarities in self.tracker.similarities.items()
        ]
        compared += [
            (f"with the baseline's at layer {key!r}", key, "the baseline's", similarities)
            for key, similarities in self.baseline.similarities.items()
        ]
        for alarm_key, key, compared_to, similarities in compared:
            finding = self.alarm.update(alarm_key, similarities)
            if finding:
                figure = snapshot.explanation.layers[key].key
                yield (
                    f"{snapshot.moment}: the maps of layer {key!r} suddenly differ from {compared_to}: {finding}. See "
                    f"the figure {figure!r}. Expect this after a step of the learning rate or a change of the data; "
                    "otherwise check what changed in the model or its input."
                )

    @property
    def signature(self) -> dict[str, Any]:
        """What two runs must have in common for their snapshots to be compared."""
        explainer = self.explainer
        target: list[Any] = [target_name(self.target)]
        if not is_dynamic(self.target) and not explainer.output_kind.reads_masks(self.probe):
            logits = self.probe.images.new_empty(len(self.probe), explainer.output_kind.num_logits or 1)
            target += [score.choose(logits, self.probe).tolist() for score in list_class_scores(self.target)]
        # Evidence on a layer's own grid, which earlier checkpoints hold, is the same wherever its cells lie.
        is_placed = explainer.enlarges_maps and explainer.find_centers(self.probe.size)
        return {
            "layers": [layer.key for layer in explainer.layers],
            "methods": list(explainer.methods),
            "fuse": explainer.fuse,
            "flips": explainer.flips,
            "target": target,
            **({"placement": explainer.placement} if is_placed else {}),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to continue as if never interrupted: plain containers of CPU tensors."""
        return {
            "signature": self.signature,
            "track": self.tracker.state_dict(),
            **(self.figures.state_dict() if self.figures else {}),
            "alarm": self.alarm.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.tracker.load_state_dict(state["track"], self.probe.images.device)
        if self.figures:
            self.figures.load_state_dict(state)
        self.alarm.load_state_dict(state.get("alarm", {"seen": {}}))


def find_degenerate_layers(explanation: Explanation) -> Iterator[str]:
    """Yield a message for each layer whose maps are all degenerate, if most images have a label to explain."""
    for key, map_status in explanation.map_status.items():
        codes = [code for code in map_status.tolist() if code != MapStatus.NO_LABEL]
        if 0 not in codes and 2 * len(codes) > len(map_status):  # with few images, it may be chance
            reasons = " and ".join(sorted(str(MapStatus(code).text) for code in set(codes)))
            yield f"All maps of layer {key!r} are degenerate: {reasons}. Choose another layer with `layers=`."


def has_multilabels(probe: Probe, explainer: Explainer) -> bool:
    """Return whether the probe has a label for every class of the model."""
    return probe.multilabel and probe.labels is not None and probe.labels.shape[1] == explainer.output_kind.num_logits


def resolve_target(target: Target | None, probe: Probe, explainer: Explainer) -> Target:
    """Return the target in terms of the output; None ("auto") is the label if there is one, else the prediction."""
    return with_labels(explainer.output_kind.resolve(target, probe), probe)
