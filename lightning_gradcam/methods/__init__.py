"""How evidence is computed: equations on a layer's activations and gradients, and what takes more than those."""

from __future__ import annotations

from lightning_gradcam.methods.cam import cam, eigencam, eigengradcam, gradcam, principal

# isort: split
# The equations are registered first.
from lightning_gradcam.methods.attention import AttentionRelevance, Rollout
from lightning_gradcam.methods.base import METHODS, LayerMethod, PassMethod, arity, check_extra, place_of, takes_passes
from lightning_gradcam.methods.gradient_free import AblationCAM, ScoreCAM
from lightning_gradcam.methods.guided import Deconvolution, GuidedBackprop, GuidedGradCAM
from lightning_gradcam.methods.occlusion import Occlusion
from lightning_gradcam.methods.saliency import IntegratedGradients, Saliency, SmoothGrad
from lightning_gradcam.methods.surrogates import KernelShap, Lime

EQUATIONS = tuple(name for name, method in METHODS.items() if not takes_passes(method))
"""The names of the methods of (activations, gradients)."""

__all__ = [
    "EQUATIONS",
    "METHODS",
    "AblationCAM",
    "AttentionRelevance",
    "Deconvolution",
    "GuidedBackprop",
    "GuidedGradCAM",
    "IntegratedGradients",
    "KernelShap",
    "LayerMethod",
    "Lime",
    "Occlusion",
    "PassMethod",
    "Rollout",
    "Saliency",
    "ScoreCAM",
    "SmoothGrad",
    "arity",
    "cam",
    "check_extra",
    "eigencam",
    "eigengradcam",
    "gradcam",
    "place_of",
    "principal",
    "takes_passes",
]
