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
    from lightning_gradcam.methods import AblationCAM, AttentionRelevance, Rollout, ScoreCAM
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
    "EachLabel": "targets",
    "EmbeddingNorm": "targets",
    "Explanation": "explanation",
    "FGSM": "attacks",
    "FastFGSMLoss": "robust",
    "GradCAMCallback": "callback",
    "Layer": "trace",
    "Margin": "targets",
    "NotExplainableError": "explanation",
    "PGD": "attacks",
    "PGDLoss": "robust",
    "PixelSpace": "attacks",
    "Pixels": "probe",
    "Preprocess": "inputs",
    "Probe": "probe",
    "Rollout": "methods",
    "ScoreCAM": "methods",
    "SegmentationScore": "dense",
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
    "EachLabel",
    "EmbeddingNorm",
    "Explanation",
    "FastFGSMLoss",
    "GradCAMCallback",
    "Layer",
    "Margin",
    "NotExplainableError",
    "PGDLoss",
    "PixelSpace",
    "Pixels",
    "Preprocess",
    "Probe",
    "Rollout",
    "ScoreCAM",
    "SegmentationScore",
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
