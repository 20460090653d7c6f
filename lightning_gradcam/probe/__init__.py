"""The probe: a fixed batch of images to explain, and its sources."""

from __future__ import annotations

from lightning_gradcam.probe.normalization import Normalization, Pixels
from lightning_gradcam.probe.probe import Probe, restore_pixels
from lightning_gradcam.probe.types import Forward, FreezableTarget, Target

__all__ = ["Forward", "FreezableTarget", "Normalization", "Pixels", "Probe", "Target", "restore_pixels"]
