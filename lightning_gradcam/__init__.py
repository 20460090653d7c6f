"""Watch the explanations of a vision model change while it trains.

Names are imported when they are first used, so that importing the package loads nothing, not even PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gradcam.attacks import FGSM, PGD, PixelSpace, attack_probe
    from lightning_gradcam.baseline.baseline import Baseline
    from lightning_gradcam.callback.callback import GradCAMCallback
    from lightning_gradcam.capture.layer import Layer
    from lightning_gradcam.errors import NotExplainableError
    from lightning_gradcam.explainer.explanation import Explanation
    from lightning_gradcam.explainer.pipeline import explain
    from lightning_gradcam.layers.recommend import recommended_layers
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
    from lightning_gradcam.methods.variants import Variant
    from lightning_gradcam.probe.image_loading import Preprocess
    from lightning_gradcam.probe.normalization import Pixels
    from lightning_gradcam.probe.probe import Probe
    from lightning_gradcam.render.overlay import overlay
    from lightning_gradcam.robust import ConsistencyLoss, FastFGSMLoss, PGDLoss, TRADESLoss
    from lightning_gradcam.targets import CosineSimilarity, EachLabel, EmbeddingNorm, Margin, TopK
    from lightning_gradcam.targets.detection import BoxScore
    from lightning_gradcam.targets.segmentation import SegmentationScore


_HOMES = {
    "AblationCAM": "methods",
    "AttentionRelevance": "methods",
    "Baseline": "baseline.baseline",
    "BoxScore": "targets.detection",
    "ConsistencyLoss": "robust",
    "CosineSimilarity": "targets",
    "Deconvolution": "methods",
    "EachLabel": "targets",
    "EmbeddingNorm": "targets",
    "Explanation": "explainer.explanation",
    "FGSM": "attacks",
    "FastFGSMLoss": "robust",
    "GradCAMCallback": "callback.callback",
    "GuidedBackprop": "methods",
    "GuidedGradCAM": "methods",
    "IntegratedGradients": "methods",
    "KernelShap": "methods",
    "Layer": "capture.layer",
    "Lime": "methods",
    "Margin": "targets",
    "NotExplainableError": "errors",
    "Occlusion": "methods",
    "PGD": "attacks",
    "PGDLoss": "robust",
    "PixelSpace": "attacks",
    "Pixels": "probe.normalization",
    "Preprocess": "probe.image_loading",
    "Probe": "probe.probe",
    "Rollout": "methods",
    "Saliency": "methods",
    "ScoreCAM": "methods",
    "SegmentationScore": "targets.segmentation",
    "SmoothGrad": "methods",
    "TRADESLoss": "robust",
    "TopK": "targets",
    "Variant": "methods.variants",
    "attack_probe": "attacks",
    "explain": "explainer.pipeline",
    "overlay": "render.overlay",
    "recommended_layers": "layers.recommend",
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
