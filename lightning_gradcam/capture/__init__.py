"""Hooks on a model during a forward pass: layer outputs, attention, and the gradients of a score."""

from __future__ import annotations

from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.hooks import clean_name, named_layers

__all__ = ["capture", "clean_name", "named_layers"]
