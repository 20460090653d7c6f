"""From images to an explanation, readable top to bottom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor, nn

from lightning_gradcam.capture.forward import CheckedForward, default_forward
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.pre_softmax import has_softmax_input
from lightning_gradcam.explainer.explainer import Explainer, capture_pairs
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.fusion import Fuse, check_flips, check_fuse
from lightning_gradcam.explainer.padding import Share, find_image_share
from lightning_gradcam.layers import Layers, choose_layers, list_non_layers
from lightning_gradcam.layers.checks import add_model_hints, check_eager, check_model, check_reach
from lightning_gradcam.layers.trace_model import TRACED_ROWS, trace_model
from lightning_gradcam.methods import get_location
from lightning_gradcam.methods.apply import check_premise, has_premise, uses_gradients
from lightning_gradcam.methods.resolve import Methods, coerce_methods
from lightning_gradcam.probe.image_loading import Images, Preprocessing, as_probe
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import (
    EmbeddingNorm,
    coerce_target,
    find_logits,
    select_rows,
    with_labels,
)
from lightning_gradcam.targets.embeddings import is_embedding_target
from lightning_gradcam.targets.output_kind import _checked, adapt_target, check_pixels

Targets: TypeAlias = str | int | Sequence[int] | Tensor | Target


def explain(
    model: nn.Module,
    images: Images,
    *,
    layers: Layers = "auto",
    method: Methods = "gradcam",
    target: Targets = "predicted",
    forward: Forward | None = None,
    fuse: Fuse | None = None,
    flips: bool = False,
    preprocess: Preprocessing | None = None,
) -> Explanation:
    """Show where in the images the evidence for a score lies.

    The model is left as it was found (see `isolation.isolated`); the pass costs about one forward pass, and only what
    lies behind the earliest layer is kept for backward.

    Args:
        model: Any module; it is evaluated, also where it is in train mode.
        images: ``(N, C, *spatial)`` float, as the model takes them, on its device; or a `Probe` of them; or one image
            or a list of them, as tensors ``(C, *spatial)``, arrays ``(H, W, C)``, PIL images or names of files, see
            `inputs.as_probe`.
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
        preprocess: What makes of such an image what the model takes: a transform of torchvision, a `Preprocess`, or
            `Normalization`.

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
    probe = as_probe(images, model, preprocess)
    score = with_labels(coerce_target(target), probe)
    plan = prepare(model, probe, layers=layers, method=method, target=score, forward=forward, fuse=fuse, flips=flips)
    if plan.note:
        warnings.warn(plan.note, stacklevel=2)
    return replace(plan(model, probe, [score])[0], photos=probe.photos)


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
) -> Explainer:
    """Trace the model once on the first images and decide; arguments and errors as for `explain`."""
    check_model(model)
    methods = coerce_methods(method)
    check_fuse(fuse)
    check_flips(flips)
    target, call = with_labels(target, probe), CheckedForward(forward or default_forward(model))
    with add_model_hints(model):
        shapes, output, answer = trace_model(model, probe, call, target)
        read = [each for each in methods.values() if get_location(each) is None]
        places = choose_layers(layers, shapes, model) if read else []
        check_eager(places, model)
        if any(uses_gradients(each) for each in read):
            check_reach(places, shapes)
        check_fuse(fuse, places, len(read) == len(methods))
        places += list_non_layers((get_location(each) for each in methods.values()), shapes)
    logits = None if is_embedding_target(target) else find_logits(output)
    note = _checked(target, probe, logits)
    if isinstance(target, EmbeddingNorm):
        target.check(output)
    count = told = None if logits is None else logits.shape[1]
    if answer == "pixels":
        told = check_pixels(target, output, probe)
    share: Share = ()
    if answer == "boxes":
        with isolated(model):
            share = find_image_share(model, probe)
    call = replace(call, tracks_softmax=has_softmax_input(output))
    plan = Explainer(tuple(places), methods, call, shapes, count, fuse, flips, note, answer, share, told)
    if has_premise(methods.values()):
        rows = probe[:TRACED_ROWS]
        score = adapt_target(select_rows(target, slice(len(rows))), answer)
        with isolated(model):
            check_premise(capture_pairs(model, rows, plan.layers, call, [score])[0])
    return plan
