"""Choice of the layers to explain: rules, names, and recommendations."""

from __future__ import annotations

from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.layers.features import feature_maps
from lightning_gradcam.layers.resolve import Layers, check_layers, choose_layers, list_non_layers
from lightning_gradcam.layers.rules import ENOUGH_CELLS, RULES, LayerRule, auto, stages, to_layer

__all__ = [
    "ENOUGH_CELLS",
    "RULES",
    "Layer",
    "LayerRecord",
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
