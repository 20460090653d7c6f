"""All hooks of this package: what a model does on the way to a score, and with which gradient."""

from __future__ import annotations

from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.hooks import clean_name, named_layers

__all__ = ["capture", "clean_name", "named_layers"]
