"""The images that are explained, and where they come from."""

from __future__ import annotations

from lightning_gradcam.probe.normalization import Pixels
from lightning_gradcam.probe.probe import Probe, pixels_of
from lightning_gradcam.probe.types import Choosing, Forward, Target

__all__ = ["Choosing", "Forward", "Pixels", "Probe", "Target", "pixels_of"]
