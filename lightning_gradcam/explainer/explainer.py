"""Explainer: layers, methods and output kind, resolved once for a model and then run on any of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import Layer, LayerRecord, split_layers
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.fusion import Fuse, add_fused, average_mirrored, sort_by_execution
from lightning_gradcam.explainer.map_status import MapStatus, find_status
from lightning_gradcam.explainer.repeated_calls import get_grid, join_calls, split_calls, sum_calls
from lightning_gradcam.layers.cell_placement import find_cell_centers
from lightning_gradcam.layers.checks import add_model_hints
from lightning_gradcam.methods import is_pass_method
from lightning_gradcam.methods.apply import apply_method, uses_gradients
from lightning_gradcam.methods.resolve import Method
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import split_target
from lightning_gradcam.targets.classes import ClassTarget
from lightning_gradcam.targets.embeddings import MutualTarget, compares_images, stack_pairs, with_partners
from lightning_gradcam.targets.output_kinds import OutputKind
from lightning_gradcam.targets.output_kinds.decide import OutputReading
from lightning_gradcam.utils.cell_centers import CellCenters, Placement


class _Maps(NamedTuple):
    """Fields of an `Explanation` that a pass gives, by its keys."""

    evidence: dict[str, Tensor]
    layers: dict[str, Layer]
    map_status: dict[str, Tensor]
    centers: dict[str, CellCenters]


@dataclass(frozen=True)
class Explainer:
    """A prepared explainer of one model: layers and methods are resolved, and its output kind is known.

    Args:
        layers: The layers that are explained; methods that need none have a location of another kind.
        methods: The methods by name.
        forward: Calls the model.
        records: The trace that the layers were selected from.
        output_kind: The kind of the model's output, and so the meaning of a class.
        fuse: The rule that fuses the maps of several layers into one, if any.
        flips: Whether mirrored images are explained, too.
        note: A sentence for the user if something else is explained than expected, else empty.
        reading: What the output kind was decided from.
        placement: How the cells of a map are placed in the image.
    """

    layers: tuple[Layer, ...]
    methods: Mapping[str, Method]
    forward: Forward
    records: tuple[LayerRecord, ...]
    output_kind: OutputKind
    fuse: Fuse | None = None
    flips: bool = False
    note: str = ""
    reading: OutputReading | None = None
    placement: Placement = "receptive_field"

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """Explain the probe from one forward pass, or from two with ``flips``.

        Returns:
            One explanation per target, with maps for each of its scores, see `split_target`.
        """
        scores = [self.output_kind.adapt(score) for target in targets for score in split_target(target).values()]
        with isolated(model):
            explanations = self._explain_scores(model, probe, scores)
            if self.flips:
                explanations = self._average_with_mirrored(model, probe, scores, explanations)
        if self.fuse:
            explanations = self._add_fused(explanations, self.fuse)
        if any(compares_images(score, probe) for score in scores):
            explanations = [explanation.split_pairs() for explanation in explanations]
        return _group_by_target(targets, explanations)

    def _explain_scores(self, model: nn.Module, probe: Probe, scores: Sequence[Target]) -> list[Explanation]:
        """Explain each score, all from one forward pass."""
        keep_graph = any(is_pass_method(method) for method in self.methods.values())
        with add_model_hints(model):
            passes = capture_pairs(model, probe, split_calls(self.layers), self._run, scores, keep_graph)
        # The caller's autocast is for the model: the equations are float32.
        with torch.autocast(probe.images.device.type, enabled=False):
            centers = self.find_centers(probe.size)
            return [self._explain_pass(replace(captured, centers=centers)) for captured in passes]

    def _run(self, model: nn.Module, probe: Probe) -> Any:
        """Call the model, and check that its output still has the same classes."""
        try:
            output = self.forward(model, probe)
        except ForwardError as error:
            raise ForwardError(
                f"{error} It ran when it was traced: if it takes only batches of certain sizes, as with a queue or a "
                "memory bank, pass that many images."
            ) from error.__cause__
        self.output_kind.check_output(output)
        return output

    def _explain_pass(self, captured: CapturedPass) -> Explanation:
        """Apply the methods to a pass."""
        target, output, probe = captured.target, captured.output, captured.probe
        maps = self._compute_maps(captured)
        selected = target.select_classes(output, probe) if isinstance(target, ClassTarget) else None
        classes = selected if selected is not None and _is_one_per_image(selected) else None
        if classes is not None:
            has_none = classes < 0
            maps.map_status.update(
                {key: codes.masked_fill(has_none, MapStatus.NO_LABEL) for key, codes in maps.map_status.items()}
            )
        logits = self.output_kind.find_logits(output)
        scores = target(output, probe).detach().float()
        return Explanation(
            evidence=maps.evidence,
            logits=probe.images.new_empty(len(probe), 0) if logits is None else logits.detach().float(),
            classes=classes,
            size=probe.size,
            layers=maps.layers,
            map_status=maps.map_status,
            explained={} if selected is None else {"": selected},
            scores={"": scores.flatten(1).sum(1) if scores.ndim > 1 else scores},
            region=target.find_region(output, probe) if isinstance(target, ClassTarget) else None,
            centers=maps.centers,
        )

    def _compute_maps(self, captured: CapturedPass) -> _Maps:
        """Compute the evidence, its layer, its map status and the centers of its cells."""
        maps = _Maps({}, {}, {}, {})
        evidence, layers, map_status = maps.evidence, maps.layers, maps.map_status
        locations = {**captured.elsewhere, **{layer.key: layer for layer in self.layers}}
        for name, method in self.methods.items():
            for layer_key, tensor in sum_calls(apply_method(method, captured), self.layers).items():
                key = layer_key if len(self.methods) == 1 else f"{layer_key}/{name}"
                layers[key] = locations[layer_key]
                evidence[key] = self.output_kind.locate(tensor) if layers[key].is_module else tensor
                gradients = join_calls(captured.gradients, layers[key]) if uses_gradients(method) else None
                map_status[key] = find_status(evidence[key], gradients)
                centers, grid = captured.centers.get(layer_key), tensor.shape[1:]
                if centers and grid == get_grid(captured.activations, layers[key]):
                    maps.centers[key] = self.output_kind.locate_centers(centers, grid)
        return maps

    @property
    def enlarges_maps(self) -> bool:
        """Whether evidence is computed from enlarged maps, so that it depends on where cells lie."""
        return self.fuse is not None or any(getattr(method, "enlarges_maps", False) for method in self.methods.values())

    def find_centers(self, size: Sequence[int]) -> dict[str, CellCenters]:
        """Return the centers of the cells of each layer, by its key, except where they cover the image evenly."""
        if self.placement == "stretch":
            return {}
        centers = {
            layer.key: find_cell_centers(layer, self.records, size)
            for layer in (*self.layers, *split_calls(self.layers))
        }
        return {key: of_layer for key, of_layer in centers.items() if of_layer}

    def _average_with_mirrored(
        self, model: nn.Module, probe: Probe, scores: Sequence[Target], explanations: Sequence[Explanation]
    ) -> list[Explanation]:
        """Explain the mirrored images for the same classes, and average the evidence."""
        frozen = [_freeze(score, straight) for score, straight in zip(scores, explanations, strict=True)]
        mirrored = self._explain_scores(model, probe.mirror(), frozen)
        return [average_mirrored(*pair) for pair in zip(explanations, mirrored, strict=True)]

    def _add_fused(self, explanations: Sequence[Explanation], fuse: Fuse) -> list[Explanation]:
        """Insert the fused maps of all layers."""
        order = sort_by_execution(self.layers, self.records)
        return [add_fused(explanation, list(self.methods), order, fuse) for explanation in explanations]


def _is_one_per_image(classes: Tensor) -> bool:
    """Return whether a target selected one class per image, not several or a pair."""
    return classes.dtype != torch.bool and classes.ndim == 1


def _freeze(score: Target, explanation: Explanation) -> Target:
    """Return the score of the classes that were explained; a score of no class as it is."""
    return score.freeze_to(explanation.explained[""]) if isinstance(score, ClassTarget) else score


def _group_by_target(targets: Sequence[Target], explanations: Sequence[Explanation]) -> list[Explanation]:
    """Merge the explanations of each target's scores, which are in the order of the targets."""
    remaining = iter(explanations)
    return [Explanation.merge_scores({name: next(remaining) for name in split_target(target)}) for target in targets]


def capture_pairs(
    model: nn.Module,
    probe: Probe,
    layers: Sequence[Layer],
    forward: Forward,
    targets: Sequence[Target],
    keep: bool = True,
) -> list[CapturedPass]:
    """Capture a pass as `capture` does; both images of a pair run in one batch, each with the other as its reference.

    Args:
        model: The model, isolated.
        probe: The images.
        layers: Layers and locations of other kinds.
        forward: Calls the model.
        targets: The scores to explain.
        keep: Whether the graph is kept after the last target's gradients.
    """
    modules, other_locations = split_layers(layers)
    if not any(compares_images(target, probe) for target in targets):
        passes = capture(model, probe, modules, forward, targets, keep)
        return [replace(captured, elsewhere=other_locations) for captured in passes]
    mutual = [MutualTarget(target) for target in targets]
    passes = capture(model, stack_pairs(probe), modules, forward, mutual, keep)
    return [
        replace(
            captured, target=target, probe=with_partners(captured.output, captured.probe), elsewhere=other_locations
        )
        for captured, target in zip(passes, targets, strict=True)
    ]
