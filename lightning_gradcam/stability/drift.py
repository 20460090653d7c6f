"""The curves of a run: how explanations change from snapshot to snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import compute_degenerate_fraction
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
"""Placeholders logged before a curve can be computed.

They are worst-case values, so that a monitor does not remember the first epoch as the best.
"""

MAIN_CURVES = frozenset(
    {"drift", "drift_from_start", "overhead", "baseline_similarity", "adv_similarity", "adv_accuracy"}
)
"""The curves that loggers get by default, of the first map only."""


@dataclass(frozen=True)
class SnapshotMaps:
    """The part of a snapshot that later ones compare with.

    Args:
        maps: ``(N, *s)`` maps by key.
        explained: The explained classes, see `Explanation.explained`.
    """

    maps: Mapping[str, Tensor]
    explained: Mapping[str, Tensor]

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers of CPU tensors."""
        return {
            "maps": {key: maps.cpu() for key, maps in self.maps.items()},
            "explained": {name: classes.cpu() for name, classes in self.explained.items()},
        }

    @staticmethod
    def from_state_dict(state: Mapping[str, Any], device: torch.device) -> SnapshotMaps:
        """Return the maps that `state_dict` was taken of, on ``device``."""
        return SnapshotMaps(
            {key: maps.to(device) for key, maps in state["maps"].items()},
            {name: classes.to(device) for name, classes in state["explained"].items()},
        )


@dataclass
class DriftTracker:
    """Compares every snapshot of a run with the previous and with the first one.

    Args:
        target: The score that is explained. If the explained class can change, as for the predicted class, every
            snapshot explains also the classes of the snapshots that it is compared with: a map that changes because
            the class changed is not drift.
        is_multilabel: Whether each image may have several labels.
        start: The maps of the first snapshot.
        previous: The maps of the previous snapshot.
        last: The latest numbers, all finite, as they are logged.
        measured: The latest numbers, NaN if no image has a value, with the standard errors of the drift.
        similarities: ``(N,)`` similarities of the latest two snapshots by key.
        snapshots: The number of snapshots.
    """

    target: Target
    is_multilabel: bool = False
    start: SnapshotMaps | None = None
    previous: SnapshotMaps | None = None
    last: dict[str, Tensor] = field(default_factory=dict)
    measured: dict[str, Tensor] = field(default_factory=dict)
    similarities: dict[str, Tensor] = field(default_factory=dict)
    snapshots: int = 0

    def list_targets(self) -> list[Target]:
        """Return the targets of the next snapshot.

        The first is the one that is drawn; those of the classes of the previous and of the first snapshot follow if
        the explained class can change.
        """
        compared = [snapshot.explained for snapshot in (self.previous, self.start) if snapshot]
        if not is_dynamic(self.target) or not compared:
            return [self.target]
        return [self.target, *(freeze_target(self.target, explained) for explained in compared)]

    def measure(
        self, explanations: Sequence[Explanation], labels: Tensor | None, further: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the numbers of a snapshot, which becomes the previous one.

        Args:
            explanations: One explanation for each of `list_targets`.
            labels: ``(N,)`` classes, if there are labels.
            further: Further numbers of the snapshot.

        Returns:
            0-dimensional float32 tensors on the maps' device. The first layer has the plain names, others have names
            such as ``drift/layer3``. The first snapshot has nothing to compare with, and no drift. If no image has a
            value, the latest number is repeated; `measured` has NaN then, and also ``drift_error``, the standard error.
        """
        current, maps = explanations[0], explanations[0].maps
        numbers = dict(further or {})
        values: dict[str, Tensor] = {}  # one per image
        suffixes = ["", *(f"/{key}" for key in list(maps)[1:])]
        self.similarities, start_similarities = self._compare(explanations)
        for key, suffix in zip(maps, suffixes, strict=True):
            unknown = maps[key].new_full((len(maps[key]),), torch.nan)
            values[f"drift{suffix}"] = 1 - self.similarities.get(key, unknown)
            values[f"drift_from_start{suffix}"] = 1 - start_similarities.get(key, unknown)
            values[f"concentration{suffix}"] = gini(maps[key])
            numbers[f"degenerate{suffix}"] = compute_degenerate_fraction(current.map_status[key])
        if current.logits.shape[1]:
            values["confidence"], predicted = predictions(current.logits, self.is_multilabel)
            if labels is not None:
                values["accuracy"] = (predicted == labels).float()
        means, errors = (
            dict(zip(values, column.unbind(), strict=True))
            for column in mean_and_error(torch.stack(list(values.values())))
        )
        numbers |= means
        is_first, self.previous = self.previous is None, SnapshotMaps(maps, current.explained)
        self.start = self.start or self.previous
        self.measured = {**numbers, **{f"drift_error{suffix}": errors[f"drift{suffix}"] for suffix in suffixes}}
        self.snapshots += 1
        measurable = {name: v for name, v in numbers.items() if not (is_first and is_comparison(name))}
        self.last = self._replace_nonfinite(measurable)
        return self.last

    def _compare(self, explanations: Sequence[Explanation]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the similarities to the previous and to the first snapshot, ``(N,)`` by key."""
        for_previous, for_start = explanations[-2 % len(explanations)].maps, explanations[-1].maps
        to_previous: dict[str, Tensor] = {}
        to_start: dict[str, Tensor] = {}
        for key in for_previous:
            pairs = [
                (similarities, _check_size(snapshot.maps[key], maps[key], key), maps[key])
                for similarities, snapshot, maps in (
                    (to_previous, self.previous, for_previous),
                    (to_start, self.start, for_start),
                )
                if snapshot is not None and key in snapshot.maps
            ]
            if pairs:  # in one call, because `spearman` consists of many small operations
                earlier, current = torch.cat([pair[1] for pair in pairs]), torch.cat([pair[2] for pair in pairs])
                rows = spearman(earlier, current).reshape(len(pairs), -1)
                for (similarities, _, _), row in zip(pairs, rows, strict=True):
                    similarities[key] = row
        return to_previous, to_start

    def _replace_nonfinite(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the numbers with the latest finite ones, or `FIRST`, in place of those that are not finite."""
        current = torch.stack(list(numbers.values()))
        fallbacks = [
            self.last[name] if name in self.last else current.new_full((), FIRST[name.split("/")[0]])
            for name in numbers
        ]
        finite = torch.where(current.isfinite(), current, torch.stack(fallbacks))
        return dict(zip(numbers, finite.unbind(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers of CPU tensors."""
        memories = {"start": self.start, "previous": self.previous}
        return {
            "looks": self.snapshots,
            "last": {name: value.cpu() for name, value in self.last.items()},
            "memories": {name: snapshot.state_dict() for name, snapshot in memories.items() if snapshot},
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from `state_dict`, on ``device``."""
        self.snapshots = state["looks"]
        self.last = {name: value.to(device) for name, value in state["last"].items()}
        memories = {name: SnapshotMaps.from_state_dict(memory, device) for name, memory in state["memories"].items()}
        self.start, self.previous = memories.get("start"), memories.get("previous")


def is_comparison(name: str) -> bool:
    """Return whether a curve compares a snapshot with earlier ones, so that the first one has no value.

    >>> [is_comparison(name) for name in ("drift", "drift_from_start/layer3", "overhead", "accuracy")]
    [True, True, True, False]
    """
    return name.split("/")[0] in ("drift", "drift_from_start", "overhead")


def select_logged(
    values: Mapping[str, Tensor | float], monitored: set[str], has_snapshot: bool, gave_up: bool
) -> dict[str, Tensor | float]:
    """Return what is logged at the end of an epoch.

    After a snapshot, these are its numbers. Without one, only monitored numbers are logged, because a missing value
    would end the run: the latest one, or `FIRST` if there is none. After explanations were disabled, all maps count as
    degenerate.

    >>> select_logged({"drift": 0.25, "accuracy": 0.5}, {"drift", "val_loss"}, has_snapshot=False, gave_up=False)
    {'drift': 0.25}
    """
    placeholders = {name: FIRST[name.split("/")[0]] for name in monitored if name.split("/")[0] in FIRST}
    if has_snapshot:
        return {**placeholders, **values}
    logged = {**placeholders, **{name: value for name, value in values.items() if name in placeholders}}
    return {name: 1.0 if gave_up and name.startswith("degenerate") else value for name, value in logged.items()}


def _check_size(earlier: Tensor, current: Tensor, key: str) -> Tensor:
    """Return the maps of an earlier snapshot, or raise a `NotExplainableError` if the current ones differ in size."""
    if earlier.shape != current.shape:
        old_size, new_size = ("×".join(map(str, maps.shape[1:])) for maps in (earlier, current))
        raise NotExplainableError(
            f"The maps of layer {key!r} were {old_size} and are {new_size} now. The model's structure has changed, and "
            "maps of two sizes cannot be compared. Choose a layer that keeps its size with `layers=`."
        )
    return earlier
