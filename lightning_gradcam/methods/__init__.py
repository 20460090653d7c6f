"""Explanation methods: CAM equations on a layer's activations and gradients, and methods on whole passes."""

from __future__ import annotations

from lightning_gradcam.methods.cam import cam, eigencam, eigengradcam, gradcam, project_principal

# isort: split
# Equations come first in the registry.
from lightning_gradcam.methods.attention import AttentionRelevance, Rollout
from lightning_gradcam.methods.base import (
    METHODS,
    BasePassMethod,
    LayerMethod,
    PassMethod,
    check_requirement,
    count_arguments,
    get_location,
    get_neuron,
    is_pass_method,
)
from lightning_gradcam.methods.gradient_free import AblationCAM, ScoreCAM
from lightning_gradcam.methods.guided import Deconvolution, GuidedBackprop, GuidedGradCAM
from lightning_gradcam.methods.occlusion import Occlusion
from lightning_gradcam.methods.saliency import IntegratedGradients, Saliency, SmoothGrad
from lightning_gradcam.methods.surrogates import KernelShap, Lime

EQUATIONS = tuple(name for name, method in METHODS.items() if not is_pass_method(method))
"""Names of the methods of (activations, gradients)."""

__all__ = [
    "EQUATIONS",
    "METHODS",
    "AblationCAM",
    "AttentionRelevance",
    "BasePassMethod",
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
    "cam",
    "check_requirement",
    "count_arguments",
    "eigencam",
    "eigengradcam",
    "get_location",
    "get_neuron",
    "gradcam",
    "is_pass_method",
    "project_principal",
]
