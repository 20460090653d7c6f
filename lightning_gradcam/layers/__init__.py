"""Where in a model to look."""

from lightning_gradcam.layers.choice import Layers, check_layers, choose_layers, elsewhere
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
