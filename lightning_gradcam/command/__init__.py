"""``lightning-gradcam``: baselines recorded, compared and shown from a shell."""

from lightning_gradcam.command.entry import main

__all__ = ["main"]
