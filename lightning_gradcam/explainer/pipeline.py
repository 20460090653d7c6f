"""Entry points: `explain` one batch, or `prepare` an explainer for many."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from torch import Tensor, nn

from lightning_gradcam.capture.forward import CheckedForward, default_forward
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.capture.pre_softmax import has_softmax_input
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.explainer import Explainer, capture_pairs
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.fusion import Fuse, check_flips, check_fuse
from lightning_gradcam.explainer.members import MemberMean, find_members
from lightning_gradcam.explainer.repeated_calls import split_calls
from lightning_gradcam.layers import Layers, choose_layers, list_non_layers
from lightning_gradcam.layers.call_places import check_places
from lightning_gradcam.layers.checks import add_model_hints, check_eager, check_model, check_reach, describe_misplaced
from lightning_gradcam.layers.trace_model import TRACED_IMAGES, ModelTrace, trace_model
from lightning_gradcam.methods import get_location
from lightning_gradcam.methods.apply import check_mean_head, needs_mean_head, uses_gradients
from lightning_gradcam.methods.resolve import Method, Methods, coerce_methods
from lightning_gradcam.probe.image_loading import Images, as_probe
from lightning_gradcam.probe.preprocess import Preprocessing
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import TARGETS, coerce_target, list_class_scores, select_rows, with_labels
from lightning_gradcam.targets.output_kinds import OutputName, check_output_name
from lightning_gradcam.targets.output_kinds.clues import read_clues
from lightning_gradcam.targets.output_kinds.label_clues import LabelClues
from lightning_gradcam.utils.cell_centers import Placement, check_placement

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
    output: OutputName = "auto",
    placement: Placement = "receptive_field",
) -> Explanation:
    """Explain which parts of the images a score depends on.

    The model is left unchanged (see `isolation.isolated`). The cost is about one forward pass, and only the graph after
    the earliest layer is kept for the backward pass.

    Args:
        model: Any module; it runs in evaluation mode, even if it is in train mode.
        images: ``(N, C, *spatial)`` float, as the model takes them, on its device; or a `Probe` of them; or one image
            or a list of images, as tensors ``(C, *spatial)``, arrays ``(H, W, C)``, PIL images or file names, see
            `image_loading.as_probe`.
        layers: ``"auto"`` (one layer), ``"stages"`` (the last layer of every resolution), a layer's name, a module, a
            `Layer`, a list of these, or a rule: a callable of the traced layers.
        method: A method's name, a callable of (activations, gradients), a callable of one captured pass, or a list of
            these.
        target: ``"predicted"``, ``"label"``, another name or object from `targets`, for example `TopK`; a class for all
            images, or one per image; or a callable of ``(output, probe)`` that returns scores ``(n,)``, or ``(n, k)``
            to be explained together.
        forward: A callable of ``(model, probe)``, for models that take other inputs than the images alone.
        fuse: With several layers, adds a map ``"fused"`` from all of them: see `fusion.fuse_maps`.
        flips: Whether to also explain the images mirrored along their last dimension, and to average the evidence of
            both; doubles the cost.
        preprocess: Converts loaded images to model inputs: a transform from torchvision, a `Preprocess`, or a
            `Normalization`.
        output: What the model's output is: ``"classes"``, ``"regression"``, ``"embedding"``, ``"segmentation"``,
            ``"image"``, ``"detection"`` or ``"other"``; ``"auto"`` infers it from the output, the labels and the
            model's losses, and warns if it is read as something else than classes.
        placement: Where the cells of a layer lie in the image: ``"receptive_field"``, at the centers of their receptive
            fields, which `layers.center_tracing` finds, or ``"stretch"``, spread evenly, as other libraries place them.

    Returns:
        An `Explanation` on the images' device, in float32 whatever the model's precision.

    Raises:
        TypeError: An argument has an unsupported type.
        ValueError: A name is unknown, the model does not have a class, or there is only one layer to `fuse`.
        NotExplainableError: The model has no spatial layer, the score has no gradient there, or it is open what the
            output is, and so what to explain.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        >>> explanation = explain(model, torch.rand(2, 1, 8, 8), target=1)
        >>> explanation.maps["1"].shape, explanation.heatmaps()["1"].shape, explanation.layers["1"].reason
        (torch.Size([2, 6, 6]), torch.Size([2, 8, 8]), 'the last feature map on the way to the score')
    """
    check_model(model)
    probe = as_probe(images, model, preprocess).read_axes(model)
    score = with_labels(coerce_target(target), probe)
    explainer = prepare(
        model,
        probe,
        layers=layers,
        method=method,
        target=score,
        forward=forward,
        fuse=fuse,
        flips=flips,
        output=output,
        placement=placement,
    )
    for note in filter(None, (explainer.note, explainer.output_kind.announce(score))):
        warnings.warn(note, stacklevel=2)
    return replace(explainer(model, probe, [score])[0], photos=probe.photos)


def prepare(
    model: nn.Module,
    probe: Probe,
    *,
    layers: Layers = "auto",
    method: Methods = "gradcam",
    target: Target | None,
    forward: Forward | None = None,
    fuse: Fuse | None = None,
    flips: bool = False,
    output: OutputName = "auto",
    labels: Sequence[LabelClues] | None = None,
    num_classes: int | None = None,
    placement: Placement = "receptive_field",
) -> Explainer:
    """Trace the model on the first images and prepare its explainer; arguments and errors as for `explain`.

    Args:
        model: As for `explain`.
        probe: All images.
        layers: As for `explain`.
        method: As for `explain`.
        target: The score; None for the label if the output has labels, else the predicted class.
        forward: As for `explain`.
        fuse: As for `explain`.
        flips: As for `explain`.
        output: As for `explain`.
        labels: What may be labels in the batches that the images come from; by default the probe's labels.
        num_classes: Number of classes in the data, if it says so.
        placement: As for `explain`.
    """
    check_output_name(output)
    check_model(model)
    methods = coerce_methods(method)
    check_fuse(fuse)
    check_flips(flips)
    check_placement(placement)
    traced = TARGETS["predicted"] if target is None else with_labels(target, probe)
    call = CheckedForward(forward or default_forward(model))
    with add_model_hints(model):
        clues = read_clues(model, probe, traced, choice=output, num_classes=num_classes, labels=labels)
        trace = trace_model(model, probe, call, traced, clues)
        members = _find_members(model, probe, call.forward, traced, trace)
        if members is not None:
            call = CheckedForward(members)
            trace = trace_model(model, probe, call, traced, clues)
        locations = _resolve_locations(model, layers, methods, trace.records, fuse)
        places = check_places(locations, model, probe[:TRACED_IMAGES], call, partial(isolated, model))
    output_kind = trace.output_kind.for_target(traced)
    target = traced if target is not None else with_labels(output_kind.resolve(None, probe), probe)
    notes = [output_kind.validate(target, trace.output, probe), describe_misplaced(places, trace.records)]
    note = " ".join(filter(None, [*notes, "" if members is None else members.note]))
    call = replace(call, tracks_softmax=has_softmax_input(trace.output))
    explainer = Explainer(
        tuple(places), methods, call, trace.records, output_kind, fuse, flips, note, trace.reading, placement
    )
    if needs_mean_head(methods.values()):
        _check_mean_head(explainer, model, probe[:TRACED_IMAGES], target)
    return explainer


def _find_members(
    model: nn.Module, probe: Probe, forward: Forward, target: Target, trace: ModelTrace
) -> MemberMean | None:
    """Return the mean over the members of an ensemble if the traced model has several rows of logits per image.

    Raises:
        NotExplainableError: The rows do not belong to images, or all layers run once per member.
    """
    logits = trace.output_kind.find_logits(trace.output) if list_class_scores(target) else None
    if logits is None or len(logits) == trace.num_images:
        return None
    images = probe[:TRACED_IMAGES] if len(probe) > 1 else probe[[0, 0]]
    members = find_members(model, images, forward)
    if not any(record.cells > 1 for record in trace.records):
        raise NotExplainableError(
            f"The model repeats each image {members.count} times before its layers, so no layer has one map per image. "
            "Pass `forward=`, a callable of (model, probe) that runs the model on each image once."
        )
    return members


def _resolve_locations(
    model: nn.Module,
    layers: Layers,
    methods: Mapping[str, Method],
    records: Sequence[LayerRecord],
    fuse: Fuse | None,
) -> tuple[Layer, ...]:
    """Resolve ``layers`` for the methods that explain layers, and add the locations of the other methods."""
    layer_methods = [method for method in methods.values() if get_location(method) is None]
    resolved = choose_layers(layers, records, model) if layer_methods else []
    check_eager(resolved, model)
    if any(uses_gradients(method) for method in layer_methods):
        check_reach(resolved, records)
    check_fuse(fuse, resolved, len(layer_methods) == len(methods))
    return *resolved, *list_non_layers((get_location(method) for method in methods.values()), records)


def _check_mean_head(explainer: Explainer, model: nn.Module, images: Probe, target: Target) -> None:
    """Check CAM's assumption in a separate pass, on the model without what the trace changed in its buffers."""
    score = explainer.output_kind.adapt(select_rows(target, slice(len(images))))
    with isolated(model):
        check_mean_head(capture_pairs(model, images, split_calls(explainer.layers), explainer.forward, [score])[0])
