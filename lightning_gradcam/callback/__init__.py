"""The Lightning callback; only this package knows the Trainer."""

from __future__ import annotations

from lightning_gradcam.callback.callback import GradCAMCallback

__all__ = ["GradCAMCallback"]
