"""Where in a model to look."""

from __future__ import annotations

from lightning_gradcam.layers.resolve import Layers, check_layers, choose_layers, list_non_layers
from lightning_gradcam.layers.rules import ENOUGH_CELLS, RULES, LayerRule, auto, feature_maps, stages, to_layer

__all__ = [
    "ENOUGH_CELLS",
    "RULES",
    "LayerRule",
    "Layers",
    "auto",
    "check_layers",
    "choose_layers",
    "feature_maps",
    "list_non_layers",
    "stages",
    "to_layer",
]
