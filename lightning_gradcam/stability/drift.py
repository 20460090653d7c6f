"""From explanation to numbers, look after look: what the curves show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import degenerate_share
from lightning_gradcam.probe.types import Target
from lightning_gradcam.stability import gini, mean_and_error, spearman
from lightning_gradcam.targets import freeze_target, is_dynamic
from lightning_gradcam.targets.logits import predictions

FIRST = {
    "drift": 1.0,
    "drift_from_start": 1.0,
    "degenerate": 1.0,
    "concentration": 0.0,
    "accuracy": 0.0,
    "confidence": 0.0,
    "overhead": 1.0,
    "baseline_similarity": -1.0,
    "adv_similarity": -1.0,
    "adv_similarity_held": -1.0,
    "adv_topk": 0.0,
    "adv_topk_held": 0.0,
    "adv_ssim": -1.0,
    "adv_ssim_held": -1.0,
    "adv_degenerate": 1.0,
    "adv_accuracy": 0.0,
}
"""Logged where there is nothing to compare with or to measure: the worst, as a 0 would be the best drift for ever."""


@dataclass(frozen=True)
class SnapshotMaps:
    """What one look leaves for the next: ``(N, *s)`` maps per key, and `Explanation.explained`."""

    maps: Mapping[str, Tensor]
    explained: Mapping[str, Tensor]


@dataclass
class DriftTracker:
    """The looks of a run, as far as numbers need them: the first one and the previous one.

    Args:
        target: What is explained. For the predicted class, and others that move, every look explains the class of the
            look that it is compared with too: a map that changes because the explained class changed is no drift.
        multilabel: Whether each image may have several labels.
    """

    target: Target
    multilabel: bool = False
    start: SnapshotMaps | None = None
    previous: SnapshotMaps | None = None
    last: dict[str, Tensor] = field(default_factory=dict)
    found: dict[str, Tensor] = field(default_factory=dict)
    agree: dict[str, Tensor] = field(default_factory=dict)
    looks: int = 0

    def targets(self) -> list[Target]:
        """What the next look explains: what is drawn, and to compare, the previous and the first look's classes."""
        compared = [memory.explained for memory in (self.previous, self.start) if memory]
        if not is_dynamic(self.target) or not compared:
            return [self.target]
        return [self.target, *(freeze_target(self.target, explained) for explained in compared)]

    def measure(
        self, explanations: Sequence[Explanation], labels: Tensor | None, beside: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The numbers of a look, from the explanations of `targets`; it becomes the previous one.

        Args:
            explanations: Of the look.
            labels: ``(N,)``, where there are any.
            beside: Further numbers of the look.

        Returns:
            0-dimensional float32 tensors on the maps' device: for the first layer under their plain names, for the
            others as ``drift/layer3``. Where no image gives a number, the last one is repeated; `found` has NaN there,
            and ``drift_error``, the standard error.
        """
        drawn, maps = explanations[0], explanations[0].maps
        known, rows, suffixes = dict(beside or {}), dict[str, Tensor](), ["", *(f"/{key}" for key in list(maps)[1:])]
        self.agree, from_start = self._agreements(explanations)
        for key, suffix in zip(maps, suffixes, strict=True):
            unknown = maps[key].new_full((len(maps[key]),), torch.nan)
            rows[f"drift{suffix}"] = 1 - self.agree.get(key, unknown)
            rows[f"drift_from_start{suffix}"] = 1 - from_start.get(key, unknown)
            rows[f"concentration{suffix}"] = gini(maps[key])
            known[f"degenerate{suffix}"] = degenerate_share(drawn.map_status[key])
        if drawn.logits.shape[1]:
            rows["confidence"], predicted = predictions(drawn.logits, self.multilabel)
            if labels is not None:
                rows["accuracy"] = (predicted == labels).float()
        found = mean_and_error(torch.stack(list(rows.values())))
        means, errors = (dict(zip(rows, of_rows.unbind(), strict=True)) for of_rows in found)
        known |= means
        self.previous = SnapshotMaps(maps, drawn.explained)
        self.start = self.start or self.previous
        self.found = {**known, **{f"drift_error{suffix}": errors[f"drift{suffix}"] for suffix in suffixes}}
        self.looks += 1
        self.last = self._finite(known)
        return self.last

    def _agreements(self, explanations: Sequence[Explanation]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """How far each image's map agrees with those of the previous and of the first look, ``(N,)`` per key."""
        then, at_start = explanations[-2 % len(explanations)].maps, explanations[-1].maps
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        for key, maps in then.items():
            looks = [
                (agree, _comparable(memory.maps[key], now, key), now)
                for agree, memory, now in ((found[0], self.previous, maps), (found[1], self.start, at_start[key]))
                if memory is not None and key in memory.maps
            ]
            if looks:  # both at once: it is many small steps
                both = spearman(torch.cat([before for _, before, _ in looks]), torch.cat([now for _, _, now in looks]))
                for (agree, _, _), values in zip(looks, both.reshape(len(looks), -1), strict=True):
                    agree[key] = values
        return found

    def _finite(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same with the last ones, or `FIRST`, in the place of what is not finite."""
        now = torch.stack(list(numbers.values()))
        before = [
            self.last[name] if name in self.last else now.new_full((), FIRST[name.split("/")[0]]) for name in numbers
        ]
        finite = torch.where(now.isfinite(), now, torch.stack(before))
        return dict(zip(numbers, finite.unbind(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Plain containers of CPU tensors."""
        memories = {"start": self.start, "previous": self.previous}
        return {
            "looks": self.looks,
            "last": {name: value.cpu() for name, value in self.last.items()},
            "memories": {
                name: {
                    "maps": {key: maps.cpu() for key, maps in memory.maps.items()},
                    "explained": {part: chosen.cpu() for part, chosen in memory.explained.items()},
                }
                for name, memory in memories.items()
                if memory
            },
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from `state_dict`, on ``device``."""
        self.looks = state["looks"]
        self.last = {name: value.to(device) for name, value in state["last"].items()}
        loaded = {
            name: SnapshotMaps(
                {key: maps.to(device) for key, maps in memory["maps"].items()},
                {part: chosen.to(device) for part, chosen in memory["explained"].items()},
            )
            for name, memory in state["memories"].items()
        }
        self.start, self.previous = loaded.get("start"), loaded.get("previous")


def select_logged(
    values: Mapping[str, Tensor | float], awaited: set[str], looked: bool, gave_up: bool
) -> dict[str, Tensor | float]:
    """What is logged at the end of an epoch.

    After a look, its numbers. Without one, only what someone waits for, since a missing value would end the run: the
    last one, or `FIRST` where there never was one; and where looks were given up, all maps count as degenerate.

    >>> select_logged({"drift": 0.25, "accuracy": 0.5}, {"drift", "val_loss"}, looked=False, gave_up=False)
    {'drift': 0.25}
    """
    known = {name: FIRST[name.split("/")[0]] for name in awaited if name.split("/")[0] in FIRST}
    if looked:
        return {**known, **values}
    logged = {**known, **{name: value for name, value in values.items() if name in known}}
    return {name: 1.0 if gave_up and name.startswith("degenerate") else value for name, value in logged.items()}


def _comparable(before: Tensor, now: Tensor, key: str) -> Tensor:
    """The maps of an earlier look; a `NotExplainableError` where those of now have another size."""
    if before.shape != now.shape:
        was, now_is = ("×".join(map(str, m.shape[1:])) for m in (before, now))
        raise NotExplainableError(
            f"The maps of layer {key!r} were {was} and are {now_is} now: the model's structure has changed, and maps "
            "of two sizes cannot be compared. Name a layer that stays as it is: `layers=`."
        )
    return before
