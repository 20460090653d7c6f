"""The labels of collected images that belong to the explained output."""

from __future__ import annotations

from dataclasses import replace

from lightning_gradcam.probe.collector import drop_foreign_labels, select_labels
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.output_kinds import OutputKind


def keep_output_labels(probe: Probe, kind: OutputKind, label_name: str) -> tuple[Probe, str]:
    """Return collected images with the labels that belong to the output, and a warning if others are dropped.

    Args:
        probe: The images, with the labels and extras of their batches.
        kind: The kind of the output, which knows the name of its labels.
        label_name: The name of the probe's labels in the batches.
    """
    if kind.label_name is None:
        return replace(probe, labels=None), (
            f"The labels {label_name!r} have the name of another part of the model, so they are not used. Pass "
            "`probe=(images, labels)` with the labels of the explained output."
        )
    if kind.label_name:
        probe = select_labels(probe, label_name, kind.label_name)
    return drop_foreign_labels(probe, kind.num_classes)
