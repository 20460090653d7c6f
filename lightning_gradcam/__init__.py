"""Watch the explanations of a vision model change while it trains.

Names are imported when they are first used, so that importing the package loads nothing, not even PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gradcam.attacks import FGSM, PGD, PixelSpace, attack_probe
    from lightning_gradcam.baseline import Baseline
    from lightning_gradcam.callback import GradCAMCallback
    from lightning_gradcam.candidates import recommended_layers
    from lightning_gradcam.dense import SegmentationScore
    from lightning_gradcam.detection import BoxScore
    from lightning_gradcam.explanation import Explanation, NotExplainableError
    from lightning_gradcam.inputs import Preprocess
    from lightning_gradcam.methods import (
        AblationCAM,
        AttentionRelevance,
        Deconvolution,
        GuidedBackprop,
        GuidedGradCAM,
        IntegratedGradients,
        KernelShap,
        Lime,
        Occlusion,
        Rollout,
        Saliency,
        ScoreCAM,
        SmoothGrad,
    )
    from lightning_gradcam.pipeline import explain
    from lightning_gradcam.probe import Pixels, Probe
    from lightning_gradcam.render.single import overlay
    from lightning_gradcam.robust import ConsistencyLoss, FastFGSMLoss, PGDLoss, TRADESLoss
    from lightning_gradcam.targets import CosineSimilarity, EachLabel, EmbeddingNorm, Margin, TopK
    from lightning_gradcam.trace import Layer
    from lightning_gradcam.variants import Variant

_HOMES = {
    "AblationCAM": "methods",
    "AttentionRelevance": "methods",
    "Baseline": "baseline",
    "BoxScore": "detection",
    "ConsistencyLoss": "robust",
    "CosineSimilarity": "targets",
    "Deconvolution": "methods",
    "EachLabel": "targets",
    "EmbeddingNorm": "targets",
    "Explanation": "explanation",
    "FGSM": "attacks",
    "FastFGSMLoss": "robust",
    "GradCAMCallback": "callback",
    "GuidedBackprop": "methods",
    "GuidedGradCAM": "methods",
    "IntegratedGradients": "methods",
    "KernelShap": "methods",
    "Layer": "trace",
    "Lime": "methods",
    "Margin": "targets",
    "NotExplainableError": "explanation",
    "Occlusion": "methods",
    "PGD": "attacks",
    "PGDLoss": "robust",
    "PixelSpace": "attacks",
    "Pixels": "probe",
    "Preprocess": "inputs",
    "Probe": "probe",
    "Rollout": "methods",
    "Saliency": "methods",
    "ScoreCAM": "methods",
    "SegmentationScore": "dense",
    "SmoothGrad": "methods",
    "TRADESLoss": "robust",
    "TopK": "targets",
    "Variant": "variants",
    "attack_probe": "attacks",
    "explain": "pipeline",
    "overlay": "render.single",
    "recommended_layers": "candidates",
}

__version__ = "0.1.0"
__all__ = [
    "FGSM",
    "PGD",
    "AblationCAM",
    "AttentionRelevance",
    "Baseline",
    "BoxScore",
    "ConsistencyLoss",
    "CosineSimilarity",
    "Deconvolution",
    "EachLabel",
    "EmbeddingNorm",
    "Explanation",
    "FastFGSMLoss",
    "GradCAMCallback",
    "GuidedBackprop",
    "GuidedGradCAM",
    "IntegratedGradients",
    "KernelShap",
    "Layer",
    "Lime",
    "Margin",
    "NotExplainableError",
    "Occlusion",
    "PGDLoss",
    "PixelSpace",
    "Pixels",
    "Preprocess",
    "Probe",
    "Rollout",
    "Saliency",
    "ScoreCAM",
    "SegmentationScore",
    "SmoothGrad",
    "TRADESLoss",
    "TopK",
    "Variant",
    "attack_probe",
    "explain",
    "overlay",
    "recommended_layers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
