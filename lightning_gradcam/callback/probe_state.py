"""What checkpoints hold of the probe, and whether a run can continue the monitor of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe

LIMIT = 64 << 20
"""The largest probe, in bytes, that checkpoints hold; of a larger one they hold the hash."""

LARGE_PROBE = (
    "The probe takes {size} MiB, so checkpoints store its hash instead of its images. To resume, pass the same images "
    "again, or let the callback collect them again."
)
"""The warning about a probe above the limit; ``size`` is in MiB."""


def fits_checkpoint(probe: Probe) -> bool:
    """Return whether the probe is small enough for checkpoints."""
    return probe.nbytes <= LIMIT


def identify_probe(probe: Probe, pixels: Normalization | None, save: Literal["images", "hash"]) -> dict[str, Any]:
    """Return what checkpoints hold of the probe: its fields, or the hash of its images.

    Args:
        probe: The probe of the run.
        pixels: The normalization to save; None for collected images, whose normalization each run finds in its data.
        save: What to save if the probe is small enough; otherwise the hash is saved.
    """
    if save == "hash" or not fits_checkpoint(probe):
        return {"probe": None, "digest": probe.digest}
    return {"probe": replace(probe, pixels=pixels).state_dict()}


def can_resume(checkpoint: Mapping[str, Any], monitor: ProbeMonitor) -> bool:
    """Return whether a checkpoint has the same images, layers, methods and target as the monitor."""
    if monitor.signature != checkpoint["watch"]["signature"]:
        return False
    if checkpoint["probe"] is None:
        return bool(checkpoint["digest"] == monitor.probe.digest)
    earlier_images = Probe.from_state_dict(checkpoint["probe"]).images
    images = monitor.probe.images.cpu()
    return earlier_images.shape == images.shape and torch.equal(earlier_images.to(images.dtype), images)
