"""What was decided before the first pass, and how it is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import Layer, LayerRecord, split_layers
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.explanation import UNASKED, Explanation, find_status
from lightning_gradcam.explainer.fusion import Fuse, add_fused, average_mirrored, sort_by_execution
from lightning_gradcam.explainer.padding import Share, crop_padding
from lightning_gradcam.layers.checks import add_model_hints
from lightning_gradcam.methods import is_pass_method
from lightning_gradcam.methods.apply import apply_methods, uses_gradients
from lightning_gradcam.methods.resolve import Method
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import find_logits, split_target
from lightning_gradcam.targets.embeddings import MutualTarget, compares_images, stack_pairs, with_partners
from lightning_gradcam.targets.output_kind import Answer, adapt_target, find_choice, find_region, freeze_target_as


@dataclass(frozen=True)
class Explainer:
    """What was decided before the first pass, once: where, how, and how the model is called.

    Args:
        layers: Where evidence is read; of methods that need no layer, the place that is none.
        methods: How it is computed, by name.
        forward: How the model is called.
        shapes: The trace that the layers were chosen from.
        classes: How many classes the model tells apart; None where it returns no logits.
        fuse: How several layers become one map, where they do.
        flips: Whether mirrored images are explained, too.
        note: A sentence where what is explained is not what one would expect, else empty.
        answer: What kind of answer the model gives, and so what a class means.
        share: Which part of a layer's grid the image takes; empty for all.
        named: How many classes may be named: those told apart, of images or of pixels; None where that is not known.
    """

    layers: tuple[Layer, ...]
    methods: Mapping[str, Method]
    forward: Forward
    shapes: tuple[LayerRecord, ...]
    classes: int | None
    fuse: Fuse | None = None
    flips: bool = False
    note: str = ""
    answer: Answer = "classes"
    share: Share = ()
    named: int | None = None

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """Explain one forward pass over the probe, once for each target, or for each part of it, see `split_target`."""
        scores = [adapt_target(score, self.answer) for target in targets for score in split_target(target).values()]
        with isolated(model):
            found = self._explain(model, probe, scores)
            if self.flips:
                same = [freeze_target_as(score, each.explained) for score, each in zip(scores, found, strict=True)]
                mirrored = self._explain(model, probe.mirror(), same)
                found = [average_mirrored(*pair) for pair in zip(found, mirrored, strict=True)]
        if self.fuse:
            order = sort_by_execution(self.layers, self.shapes)
            found = [add_fused(each, list(self.methods), order, self.fuse) for each in found]
        if any(compares_images(score, probe) for score in scores):
            found = [each.sides() for each in found]
        each = iter(found)
        return [Explanation.together({part: next(each) for part in split_target(target)}) for target in targets]

    def _explain(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        keep = any(is_pass_method(method) for method in self.methods.values())
        with add_model_hints(model):
            passes = capture_pairs(model, probe, self.layers, self._run, targets, keep)
        # The caller's autocast is for the model: the equations are float32.
        with torch.autocast(probe.images.device.type, enabled=False):
            return [self._explanation(each) for each in passes]

    def _run(self, model: nn.Module, probe: Probe) -> Any:
        output = self.forward(model, probe)
        logits = find_logits(output)
        if self.classes is not None and (logits is None or logits.shape[1] != self.classes):
            # Found here, since a class that does not exist ends the process on an accelerator.
            raise NotExplainableError(
                f"The model told {self.classes} classes apart when it was looked at first, and now puts out "
                f"{'no logits' if logits is None else logits.shape[1]}. Start another run for another model."
            )
        return output

    def _explanation(self, passes: CapturedPass) -> Explanation:
        evidence: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        places: dict[str, Layer] = {}
        for name, method in self.methods.items():
            for layer, tensor in apply_methods(method, passes).items():
                key = layer if len(self.methods) == 1 else f"{layer}/{name}"
                gradients = passes.gradients[layer] if uses_gradients(method) else None
                place = passes.locations[layer]
                tensor = crop_padding(tensor, self.share) if place.is_module else tensor
                evidence[key], found[key], places[key] = tensor, find_status(tensor, gradients), place
        logits = None if self.classes is None else find_logits(passes.output)
        target, output, probe = passes.target, passes.output, passes.probe
        chosen = find_choice(target, output, probe)
        classes = None if chosen is None or chosen.dtype == torch.bool or chosen.ndim > 1 else chosen
        if classes is not None:
            found = {key: codes.masked_fill(classes < 0, UNASKED) for key, codes in found.items()}
        scores = target(output, probe).detach().float()
        return Explanation(
            evidence=evidence,
            logits=probe.images.new_empty(len(probe), 0) if logits is None else logits.detach().float(),
            classes=classes,
            size=probe.size,
            layers=places,
            map_status=found,
            explained={} if chosen is None else {"": chosen},
            scores={"": scores.flatten(1).sum(1) if scores.ndim > 1 else scores},
            region=find_region(target, output, probe),
        )


def capture_pairs(
    model: nn.Module,
    probe: Probe,
    layers: Sequence[Layer],
    forward: Forward,
    targets: Sequence[Target],
    keep: bool = True,
) -> list[CapturedPass]:
    """As `capture`; of pairs of images, one batch of both sides, each with the other's embedding for reference."""
    modules, others = split_layers(layers)
    if not any(compares_images(target, probe) for target in targets):
        found = capture(model, probe, modules, forward, targets, keep)
        return [replace(each, elsewhere=others) for each in found]
    found = capture(model, stack_pairs(probe), modules, forward, [MutualTarget(target) for target in targets], keep)
    return [
        replace(each, target=target, probe=with_partners(each.output, each.probe), elsewhere=others)
        for each, target in zip(found, targets, strict=True)
    ]
