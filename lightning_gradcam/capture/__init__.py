"""All hooks of this package: what a model does on the way to a score, and with which gradient."""

from lightning_gradcam.capture.graph import capture
from lightning_gradcam.capture.modules import clean_name, named_layers
from lightning_gradcam.capture.tape import trace

__all__ = ["capture", "clean_name", "named_layers", "trace"]
