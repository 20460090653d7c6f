"""The command ``lightning-gradcam``: record, compare and show baselines from a shell."""

from __future__ import annotations

from lightning_gradcam.cli.main import main

__all__ = ["main"]
