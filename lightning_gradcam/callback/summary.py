"""What a run watches, and how that was found, in words."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradcam.callback.config import short_repr
from lightning_gradcam.methods.resolve import describe_target
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets import target_name


def summarize(watch: ProbeMonitor, wanted: Probe | int, source: str, sources: Mapping[str, str]) -> dict[str, str]:
    """A line for every choice, by its name.

    Args:
        watch: What is watched.
        wanted: The probe that was asked for.
        source: Whose batches were gathered from, where they were.
        sources: What was found, and where.
    """
    probe, plan = watch.probe, watch.plan
    few = f" (of {wanted} asked for)" if isinstance(wanted, int) and wanted > len(probe) else ""
    labelled = "with labels" if watch.labels is not None else "without labels"
    labelled = "with several labels each" if watch.multilabel else labelled
    said = {"probe": f"{len(probe)} images{few} of {tuple(probe.images.shape[1:])}, {labelled}"}
    if source:
        said["probe"] += f", from {source} batches"
    shapes = {s.name: s for s in plan.shapes}
    for layer in plan.layers:
        at = shapes.get(layer.name)
        about = f" ({at.kind}, map {'×'.join(map(str, at.grid or ()))})" if at else ""
        said[f"layer {layer.key}" if layer.is_module else layer.key] = f"{layer.reason or 'given'}{about}"
    said["method"] = ", ".join(plan.methods) + describe_target(plan.methods, target_name(watch.target))
    said["method"] += ", mean with the mirrored images" if plan.flips else ""
    if plan.fuse:
        said["fused"] = f"{plan.fuse} of the layers, at the size of the finest"
    if watch.attack is not None:
        said["attack"] = f"{short_repr(watch.attack)}, on pixels from 0 to 1"
    if plan.output_kind.num_classes:
        said["classes"] = f"{plan.output_kind.num_classes}, from the width of the model's output"
    said["picture"] = watch.figures.note if watch.figures else "drawn by another process"
    if watch.attack is not None and len(probe.size) != 2:
        said["picture"] += "; attacked ones are measured and not drawn, as they are no photos"
    return {**said, **sources}
