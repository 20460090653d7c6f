"""``lightning-gradcam``: baselines recorded, compared and shown from a shell."""

from __future__ import annotations

from lightning_gradcam.cli.main import main

__all__ = ["main"]
