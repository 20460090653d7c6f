"""How evidence is computed: equations on a layer's activations and gradients, and what takes more than those."""

from lightning_gradcam.methods.equations import cam, eigencam, eigengradcam, gradcam, principal
from lightning_gradcam.methods.kinds import METHODS, LayerMethod, PassMethod, arity, place_of, takes_passes

EQUATIONS = tuple(name for name, method in METHODS.items() if not takes_passes(method))
"""The names of the methods of (activations, gradients)."""

__all__ = [
    "EQUATIONS",
    "METHODS",
    "LayerMethod",
    "PassMethod",
    "arity",
    "cam",
    "eigencam",
    "eigengradcam",
    "gradcam",
    "place_of",
    "principal",
    "takes_passes",
]
