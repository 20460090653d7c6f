"""Where in a model to look."""

from __future__ import annotations

from lightning_gradcam.layers.resolve import Layers, check_layers, choose_layers, elsewhere
from lightning_gradcam.layers.rules import ENOUGH_CELLS, RULES, LayerRule, as_layer, auto, feature_maps, stages

__all__ = [
    "ENOUGH_CELLS",
    "RULES",
    "LayerRule",
    "Layers",
    "as_layer",
    "auto",
    "check_layers",
    "choose_layers",
    "elsewhere",
    "feature_maps",
    "stages",
]
