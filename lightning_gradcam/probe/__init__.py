"""The probe: a fixed batch of images to explain, and its sources."""

from __future__ import annotations

from lightning_gradcam.probe.normalization import Normalization, Pixels
from lightning_gradcam.probe.probe import Probe, restore_pixels
from lightning_gradcam.probe.types import Forward, HoldableTarget, Target

__all__ = ["Forward", "HoldableTarget", "Normalization", "Pixels", "Probe", "Target", "restore_pixels"]
