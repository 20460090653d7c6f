"""From images to an explanation, readable top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.calling import Called, default_forward
from lightning_gradcam.capture import capture, trace
from lightning_gradcam.evidence import (
    Method,
    Methods,
    apply,
    check_premise,
    coerce_methods,
    has_premise,
    takes_passes,
    uses_gradients,
)
from lightning_gradcam.explanation import Explanation, NotExplainableError, flaws
from lightning_gradcam.fusion import Fuse, check_flips, check_fuse, in_order, with_fused, with_mirrored
from lightning_gradcam.hindrances import check_eager, check_model, check_reach, named
from lightning_gradcam.isolation import filled, isolated
from lightning_gradcam.layers import Layers, choose_layers
from lightning_gradcam.passes import Passes
from lightning_gradcam.probe import Forward, Probe, Target
from lightning_gradcam.targets import ClassScore, check_classes, coerce_target, find_logits, for_rows, held, logits_of
from lightning_gradcam.trace import Layer, LayerShape

Targets: TypeAlias = str | int | Sequence[int] | Tensor | Target

TRACED_ROWS = 2
"""A trace looks at shapes and reach only; two images, since models that squeeze a batch of one exist."""


def explain(
    model: nn.Module,
    images: Tensor | Probe,
    *,
    layers: Layers = "auto",
    method: Methods = "gradcam",
    target: Targets = "predicted",
    forward: Forward | None = None,
    fuse: Fuse | None = None,
    flips: bool = False,
) -> Explanation:
    """Show where in the images the evidence for a score lies.

    The model is left as it was found (see `isolation.isolated`); the pass costs about one forward pass, and only what
    lies behind the earliest layer is kept for backward.

    Args:
        model: Any module; it is evaluated, also where it is in train mode.
        images: ``(N, C, *spatial)`` float, as the model takes them, on its device; or a `Probe` of them.
        layers: ``"auto"`` (one layer), ``"stages"`` (the last layer of every resolution), a layer's name, a module, a
            `Layer`, a list of these, or a rule over the traced shapes.
        method: A method's name, a callable of (activations, gradients), one of (passes), or a list of these.
        target: ``"predicted"``, ``"label"``, a class for all images, one for each, or a callable of
            ``(output, probe)`` that returns scores ``(n,)``, or ``(n, k)`` to be explained together.
        forward: A callable of ``(model, probe)`` for models that take more, or other, than the images.
        fuse: Of several layers, one map in front of theirs, ``"fused"``: see `fusion.fuse_maps`.
        flips: Whether the same is explained in the images mirrored along their last dimension, too, and evidence is
            the mean of both; for twice the cost.

    Returns:
        An `Explanation` on the images' device, float32 whatever the model's precision.

    Raises:
        TypeError: An argument is of no known kind.
        ValueError: A name is unknown, a class is not one of the model's, or there is one layer only to `fuse`.
        NotExplainableError: The model has no spatial output, or no gradient reaches it.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        >>> explanation = explain(model, torch.rand(2, 1, 8, 8), target=1)
        >>> explanation.maps["1"].shape, explanation.heatmaps()["1"].shape, explanation.layers["1"].reason
        (torch.Size([2, 6, 6]), torch.Size([2, 8, 8]), 'the last feature map on the way to the score')
    """
    probe, score = as_probe(images), coerce_target(target)
    plan = prepare(model, probe, layers=layers, method=method, target=score, forward=forward, fuse=fuse, flips=flips)
    return plan(model, probe, [score])[0]


def as_probe(images: Tensor | Probe) -> Probe:
    """The images as a probe of ordinary tensors, see `Probe.ordinary`."""
    if not isinstance(images, (Tensor, Probe)):
        raise TypeError(
            f"Expected a tensor of shape (N, C, *spatial) or a Probe, but got {type(images).__name__}. "
            "For an array, `torch.from_numpy` makes one; for a DataLoader, take one batch's images."
        )
    return (images if isinstance(images, Probe) else Probe(images)).ordinary()


@dataclass(frozen=True)
class Plan:
    """What was decided before the first pass, once: where, how, and how the model is called.

    Args:
        layers: Where evidence is read.
        methods: How it is computed, by name.
        forward: How the model is called.
        shapes: The trace that the layers were chosen from.
        classes: How many classes the model tells apart; None where it returns no logits.
        fuse: How several layers become one map, where they do.
        flips: Whether mirrored images are explained, too.
    """

    layers: tuple[Layer, ...]
    methods: Mapping[str, Method]
    forward: Forward
    shapes: tuple[LayerShape, ...]
    classes: int | None
    fuse: Fuse | None = None
    flips: bool = False

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """Explain one forward pass over the probe, once for each target."""
        with isolated(model):
            found = self._explain(model, probe, targets)
            if self.flips:
                same = [t if e.classes is None else held(e.classes) for t, e in zip(targets, found, strict=True)]
                mirrored = self._explain(model, probe.mirrored(), same)
                found = [with_mirrored(*pair) for pair in zip(found, mirrored, strict=True)]
        order = in_order(self.layers, self.shapes)
        return [with_fused(each, list(self.methods), order, self.fuse) if self.fuse else each for each in found]

    def _explain(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        keep = any(takes_passes(method) for method in self.methods.values())
        with named(model):
            passes = capture(model, probe, self.layers, self._run, targets, keep)
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
                evidence[key], found[key], places[key] = tensor, flaws(tensor, gradients), passes.layers[layer]
        logits = find_logits(passes.output)
        target = passes.target
        return Explanation(
            evidence=evidence,
            logits=passes.probe.images.new_empty(len(passes.probe), 0) if logits is None else logits.detach().float(),
            classes=target.classes(passes.output, passes.probe) if isinstance(target, ClassScore) else None,
            size=passes.probe.size,
            layers=places,
            flaws=found,
        )


def prepare(
    model: nn.Module,
    probe: Probe,
    *,
    layers: Layers = "auto",
    method: Methods = "gradcam",
    target: Target,
    forward: Forward | None = None,
    fuse: Fuse | None = None,
    flips: bool = False,
) -> Plan:
    """Trace the model once on the first images and decide; arguments and errors as for `explain`."""
    check_model(model)
    methods = coerce_methods(method)
    check_fuse(fuse)
    check_flips(flips)
    call = Called(forward or default_forward(model))
    with named(model):
        shapes, output = traced(model, probe, call, target)
        places = choose_layers(layers, shapes, model)
        check_eager(places, model)
        if any(uses_gradients(each) for each in methods.values()):
            check_reach(places, shapes)
    logits = find_logits(output)
    if isinstance(target, ClassScore) and logits is not None:
        check_classes(target.choose(logits, probe), logits.shape[1])
    count = None if logits is None else logits.shape[1]
    plan = Plan(tuple(places), methods, call, shapes, count, fuse, flips)
    check_fuse(fuse, plan.layers)
    if has_premise(methods.values()):
        rows = probe[:TRACED_ROWS]
        with isolated(model):
            check_premise(capture(model, rows, plan.layers, call, [for_rows(target, slice(len(rows)))])[0])
    return plan


def traced(model: nn.Module, probe: Probe, forward: Forward, target: Target) -> tuple[tuple[LayerShape, ...], Any]:
    """What the model's layers return for the first images and which of them reach the score, and the model's output."""
    single = len(probe) == 1
    rows = probe[[0, 0]] if single else probe[:TRACED_ROWS]  # what has one row may be no feature of the one image

    def score(output: Any) -> Tensor:
        if not isinstance(target, ClassScore):
            return target(output, rows)
        # All classes show what the gradient reaches: one may end in a ReLU that is off, and a label may be out of
        # range, which is checked later. Weighted, since the plain sum of probabilities has no gradient.
        logits = logits_of(output)
        return logits @ torch.linspace(1, 2, logits.shape[1], device=logits.device, dtype=logits.dtype)

    try:
        with isolated(model), filled(model):
            return trace(model, rows, forward, score)
    except Exception:
        if not single:
            raise
        rows = probe  # the model, or the target, is made for one image
        with isolated(model), filled(model):
            return trace(model, rows, forward, score)
