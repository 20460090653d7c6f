"""From images to an explanation, readable top to bottom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.calling import Called, default_forward
from lightning_gradcam.capture import trace
from lightning_gradcam.evidence import (
    Methods,
    check_premise,
    coerce_methods,
    has_premise,
    uses_gradients,
)
from lightning_gradcam.explanation import Explanation
from lightning_gradcam.fusion import Fuse, check_flips, check_fuse
from lightning_gradcam.hindrances import check_eager, check_model, check_reach, named
from lightning_gradcam.isolation import filled, isolated
from lightning_gradcam.layers import Layers, choose_layers, elsewhere
from lightning_gradcam.methods import place_of
from lightning_gradcam.plan import Plan, captured
from lightning_gradcam.probe import Forward, Probe, Target
from lightning_gradcam.targets import (
    EmbeddingNorm,
    are_probabilities,
    class_scores,
    coerce_target,
    find_logits,
    for_rows,
    logits_of,
    with_labels,
)
from lightning_gradcam.targets.embeddings import Mutual, both_sides, compares_images, embeds
from lightning_gradcam.trace import LayerShape

Targets: TypeAlias = str | int | Sequence[int] | Tensor | Target

OF_PROBABILITIES = (
    "The model puts out probabilities, and the scores that they were made of are not known: the gradient of a "
    "probability is explained, which is near zero where the model is sure, and mixes in all other classes. Return the "
    "scores before the last softmax, or pass `forward=`, a callable of (model, probe) that does."
)
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
        target: ``"predicted"``, ``"label"``, another name or object of `targets` (`TopK`, say), a class for all images,
            one for each, or a callable of ``(output, probe)`` that returns scores ``(n,)``, or ``(n, k)`` to be
            explained together.
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
    probe = as_probe(images)
    score = with_labels(coerce_target(target), probe)
    plan = prepare(model, probe, layers=layers, method=method, target=score, forward=forward, fuse=fuse, flips=flips)
    if plan.note:
        warnings.warn(plan.note, stacklevel=2)
    return plan(model, probe, [score])[0]


def as_probe(images: Tensor | Probe) -> Probe:
    """The images as a probe of ordinary tensors, see `Probe.ordinary`."""
    if not isinstance(images, (Tensor, Probe)):
        raise TypeError(
            f"Expected a tensor of shape (N, C, *spatial) or a Probe, but got {type(images).__name__}. "
            "For an array, `torch.from_numpy` makes one; for a DataLoader, take one batch's images."
        )
    return (images if isinstance(images, Probe) else Probe(images)).ordinary()


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
    target, call = with_labels(target, probe), Called(forward or default_forward(model))
    with named(model):
        shapes, output = traced(model, probe, call, target)
        read = [each for each in methods.values() if place_of(each) is None]
        places = choose_layers(layers, shapes, model) if read else []
        check_eager(places, model)
        if any(uses_gradients(each) for each in read):
            check_reach(places, shapes)
        check_fuse(fuse, places, len(read) == len(methods))
        places += elsewhere((place_of(each) for each in methods.values()), shapes)
    logits = None if embeds(target) else find_logits(output)
    note = _checked(target, probe, logits)
    if isinstance(target, EmbeddingNorm):
        target.check(output)
    count = None if logits is None else logits.shape[1]
    plan = Plan(tuple(places), methods, call, shapes, count, fuse, flips, note)
    if has_premise(methods.values()):
        rows = probe[:TRACED_ROWS]
        with isolated(model):
            check_premise(captured(model, rows, plan.layers, call, [for_rows(target, slice(len(rows)))])[0])
    return plan


def _checked(target: Target, probe: Probe, logits: Tensor | None) -> str:
    """Raise a ValueError where classes are not the model's; else a remark on what its logits turn out to be."""
    scores = class_scores(target)
    if logits is None or not scores:
        return ""
    for score in scores:
        score.check(logits.new_zeros(len(probe), logits.shape[1]), probe)
    return OF_PROBABILITIES if are_probabilities(logits) else ""


def traced(model: nn.Module, probe: Probe, forward: Forward, target: Target) -> tuple[tuple[LayerShape, ...], Any]:
    """What the model's layers return for the first images and which of them reach the score, and the model's output."""
    single = len(probe) == 1
    pairs = compares_images(target, probe)
    rows = probe[[0, 0]] if single else probe[:TRACED_ROWS]  # what has one row may be no feature of the one image
    rows = both_sides(rows) if pairs else rows

    def score(output: Any) -> Tensor:
        if not class_scores(target):
            return (Mutual(target) if pairs else target)(output, rows)
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
        rows = both_sides(probe) if pairs else probe  # the model, or the target, is made for one image
        with isolated(model), filled(model):
            return trace(model, rows, forward, score)
