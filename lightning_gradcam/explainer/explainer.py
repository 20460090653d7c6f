"""What was decided before the first pass, and how it is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import Layer, LayerShape, split
from lightning_gradcam.capture.passes import Passes
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.explanation import UNASKED, Explanation, flaws
from lightning_gradcam.explainer.fusion import Fuse, in_order, with_fused, with_mirrored
from lightning_gradcam.explainer.padding import Share, placed
from lightning_gradcam.layers.checks import named
from lightning_gradcam.methods import takes_passes
from lightning_gradcam.methods.apply import apply, uses_gradients
from lightning_gradcam.methods.resolve import Method
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import find_logits, parts_of
from lightning_gradcam.targets.embeddings import Mutual, both_sides, compares_images, with_partners
from lightning_gradcam.targets.output_kind import Answer, chosen_by, held_as, region_of, suited


@dataclass(frozen=True)
class Plan:
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
    shapes: tuple[LayerShape, ...]
    classes: int | None
    fuse: Fuse | None = None
    flips: bool = False
    note: str = ""
    answer: Answer = "classes"
    share: Share = ()
    named: int | None = None

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """Explain one forward pass over the probe, once for each target, or for each part of it, see `parts_of`."""
        scores = [suited(score, self.answer) for target in targets for score in parts_of(target).values()]
        with isolated(model):
            found = self._explain(model, probe, scores)
            if self.flips:
                same = [held_as(score, each.explained) for score, each in zip(scores, found, strict=True)]
                mirrored = self._explain(model, probe.mirrored(), same)
                found = [with_mirrored(*pair) for pair in zip(found, mirrored, strict=True)]
        if self.fuse:
            order = in_order(self.layers, self.shapes)
            found = [with_fused(each, list(self.methods), order, self.fuse) for each in found]
        if any(compares_images(score, probe) for score in scores):
            found = [each.sides() for each in found]
        each = iter(found)
        return [Explanation.together({part: next(each) for part in parts_of(target)}) for target in targets]

    def _explain(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        keep = any(takes_passes(method) for method in self.methods.values())
        with named(model):
            passes = captured(model, probe, self.layers, self._run, targets, keep)
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

    def _explanation(self, passes: Passes) -> Explanation:
        evidence: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        places: dict[str, Layer] = {}
        for name, method in self.methods.items():
            for layer, tensor in apply(method, passes).items():
                key = layer if len(self.methods) == 1 else f"{layer}/{name}"
                gradients = passes.gradients[layer] if uses_gradients(method) else None
                place = passes.places[layer]
                tensor = placed(tensor, self.share) if place.is_module else tensor
                evidence[key], found[key], places[key] = tensor, flaws(tensor, gradients), place
        logits = None if self.classes is None else find_logits(passes.output)
        target, output, probe = passes.target, passes.output, passes.probe
        chosen = chosen_by(target, output, probe)
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
            flaws=found,
            explained={} if chosen is None else {"": chosen},
            scores={"": scores.flatten(1).sum(1) if scores.ndim > 1 else scores},
            region=region_of(target, output, probe),
        )


def captured(
    model: nn.Module,
    probe: Probe,
    layers: Sequence[Layer],
    forward: Forward,
    targets: Sequence[Target],
    keep: bool = True,
) -> list[Passes]:
    """As `capture`; of pairs of images, one batch of both sides, each with the other's embedding for reference."""
    modules, others = split(layers)
    if not any(compares_images(target, probe) for target in targets):
        found = capture(model, probe, modules, forward, targets, keep)
        return [replace(each, elsewhere=others) for each in found]
    found = capture(model, both_sides(probe), modules, forward, [Mutual(target) for target in targets], keep)
    return [
        replace(each, target=target, probe=with_partners(each.output, each.probe), elsewhere=others)
        for each, target in zip(found, targets, strict=True)
    ]
