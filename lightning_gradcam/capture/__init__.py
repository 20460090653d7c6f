"""Hooks on a model during a forward pass: layer outputs, attention, and the gradients of a score."""

from __future__ import annotations

from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.hooks import clean_name, named_layers
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.passes import CapturedPass

__all__ = ["CapturedPass", "Layer", "capture", "clean_name", "named_layers"]
