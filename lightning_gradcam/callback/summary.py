"""A summary of what a run explains, and where each part of it was found."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradcam.callback.arguments import short_repr
from lightning_gradcam.callback.probe_source import ProbeSource
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.layers.cell_placement import find_cell_centers, find_record
from lightning_gradcam.methods.resolve import describe_target
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets import target_name
from lightning_gradcam.targets.output_kinds import OutputKind


def summarize(monitor: ProbeMonitor, probe_source: ProbeSource, sources: Mapping[str, str]) -> dict[str, str]:
    """Return one line per setting, by the name of the setting.

    Args:
        monitor: The monitor of the run.
        probe_source: The source of its images.
        sources: Settings found in the data or the model, and where.
    """
    explainer = monitor.explainer
    lines = {
        "probe": describe_probe(monitor, probe_source),
        **describe_layers(explainer, monitor.probe.size),
        "method": describe_method(monitor),
        "fused": f"{explainer.fuse} of the layers, at the size of the finest" if explainer.fuse else "",
        "attack": f"{short_repr(monitor.attack)}, on pixels from 0 to 1" if monitor.attack is not None else "",
        "output": describe_output_kind(explainer.output_kind),
        "figure": describe_figure(monitor),
    }
    return {**{name: line for name, line in lines.items() if line}, **sources}


def describe_probe(monitor: ProbeMonitor, probe_source: ProbeSource) -> str:
    """Return the number and shape of the images, their labels and their source."""
    probe, request = monitor.probe, probe_source.request
    requested = f" (of {request} requested)" if isinstance(request, int) and request > len(probe) else ""
    kind = monitor.explainer.output_kind
    labels = "with labels" if monitor.labels is not None or kind.has_labels(probe) else "without labels"
    reading = monitor.explainer.reading
    if not kind.has_classes and reading is not None and reading.clues.labels:
        labels = "with labels that are not classes of the output"
    labels = "with masks as labels" if kind.reads_masks(probe) else labels
    labels = "with several labels each" if monitor.is_multilabel else labels
    labels += f" ({kind.label_name})" if kind.label_name and labels != "without labels" else ""
    source = f", from {probe_source.name} batches" if probe_source.name else ""
    return f"{len(probe)} {describe_images(probe, requested)}, {labels}{source}"


def describe_images(probe: Probe, requested: str = "") -> str:
    """Return what the images are, and their shape, as the model takes them.

    >>> import torch
    >>> describe_images(Probe(torch.rand(2, 3, 6, 8, 8), axes="frames first"))
    'clips of 6 frames, the first dimension of maps, each (3, 8, 8)'
    """
    noun = {"frames first": "clip", "no channels": "spectrogram"}.get(probe.axes, "image")
    noun += ("" if len(probe) == 1 else "s") + requested
    shape = tuple(probe.restore_axes().images.shape[1:])
    if probe.axes == "frames first":
        return f"{noun} of {shape[0]} frames, the first dimension of maps, each {shape[1:]}"
    return f"{noun} of {shape}{', without channels' if probe.axes == 'no channels' else ''}"


def describe_layers(explainer: Explainer, size: tuple[int, ...]) -> dict[str, str]:
    """Return, for each layer, why it was chosen, its kind, the size of its map, and where its cells lie in the image.

    Args:
        explainer: The prepared explainer.
        size: Spatial dimensions of the images.
    """
    records = {record.name: record for record in explainer.records}
    lines = {}
    for layer in explainer.layers:
        record = records.get(layer.name)
        shape = f" ({record.kind}, map {'×'.join(map(str, record.grid or ()))})" if record else ""
        placement = describe_placement(layer, explainer, size)
        lines[f"layer {layer.key}" if layer.is_module else layer.key] = f"{layer.reason or 'given'}{shape}{placement}"
    return lines


def describe_output_kind(kind: OutputKind) -> str:
    """Return what the model's output is taken for, and why."""
    head = f" of the part {kind.head!r}" if kind.head else ""
    since = f", since {kind.reason}" if kind.reason else ""
    return f"{kind.describe()}{head}{since}"


def describe_placement(layer: Layer, explainer: Explainer, size: tuple[int, ...]) -> str:
    """Return where a layer's cells lie in the image; empty if their receptive fields cover it evenly."""
    record = find_record(layer, explainer.records)
    centers = find_cell_centers(layer, explainer.records, size)
    if record is None or record.grid is None or centers is None:
        return ""
    shift = f"up to {centers.measure_shift(record.grid, size):.1f} pixels"
    if explainer.placement == "stretch":
        return f", stretched over the image; the receptive fields of its cells lie {shift} away"
    return f", cells placed at the centers of their receptive fields; plain stretching would be off by {shift}"


def describe_method(monitor: ProbeMonitor) -> str:
    """Return the methods and the target that they explain."""
    methods = monitor.explainer.methods
    flips = ", mean with the mirrored images" if monitor.explainer.flips else ""
    return f"{', '.join(methods)}{describe_target(methods, target_name(monitor.target))}{flips}"


def describe_figure(monitor: ProbeMonitor) -> str:
    """Return how the images are drawn."""
    line = monitor.figures.note if monitor.figures else "drawn by another process"
    if monitor.attack is not None and len(monitor.probe.size) != 2:
        line += "; attacked images are measured and not drawn, because they are not photos"
    return line
