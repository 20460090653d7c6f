"""Watch the explanations of a vision model change while it trains.

Names are imported when they are first used, so that importing the package loads nothing, not even PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gradcam.attacks import (
        FGSM as FGSM,
        PGD as PGD,
        PixelSpace as PixelSpace,
        attack_probe as attack_probe,
    )
    from lightning_gradcam.baseline import Baseline as Baseline
    from lightning_gradcam.callback import GradCAMCallback as GradCAMCallback
    from lightning_gradcam.capture.layer import Layer as Layer
    from lightning_gradcam.errors import NotExplainableError as NotExplainableError
    from lightning_gradcam.explainer.explanation import Explanation as Explanation
    from lightning_gradcam.explainer.pipeline import explain as explain
    from lightning_gradcam.layers.recommend import recommended_layers as recommended_layers
    from lightning_gradcam.methods import (
        AblationCAM as AblationCAM,
        AttentionRelevance as AttentionRelevance,
        Deconvolution as Deconvolution,
        GuidedBackprop as GuidedBackprop,
        GuidedGradCAM as GuidedGradCAM,
        IntegratedGradients as IntegratedGradients,
        KernelShap as KernelShap,
        Lime as Lime,
        Occlusion as Occlusion,
        Rollout as Rollout,
        Saliency as Saliency,
        ScoreCAM as ScoreCAM,
        SmoothGrad as SmoothGrad,
    )
    from lightning_gradcam.methods.variants import Variant as Variant
    from lightning_gradcam.probe import Normalization as Normalization, Pixels as Pixels, Probe as Probe
    from lightning_gradcam.probe.preprocess import Preprocess as Preprocess
    from lightning_gradcam.render.overlay import overlay as overlay
    from lightning_gradcam.robust import (
        ConsistencyLoss as ConsistencyLoss,
        FastFGSMLoss as FastFGSMLoss,
        PGDLoss as PGDLoss,
        TRADESLoss as TRADESLoss,
    )
    from lightning_gradcam.targets import (
        CosineSimilarity as CosineSimilarity,
        EachLabel as EachLabel,
        EmbeddingNorm as EmbeddingNorm,
        Margin as Margin,
        TopK as TopK,
    )
    from lightning_gradcam.targets.detection import BoxScore as BoxScore
    from lightning_gradcam.targets.segmentation import SegmentationScore as SegmentationScore

_EXPORTS = {
    "attacks": ["FGSM", "PGD", "PixelSpace", "attack_probe"],
    "baseline": ["Baseline"],
    "callback": ["GradCAMCallback"],
    "capture.layer": ["Layer"],
    "errors": ["NotExplainableError"],
    "explainer.explanation": ["Explanation"],
    "explainer.pipeline": ["explain"],
    "layers.recommend": ["recommended_layers"],
    "methods": [
        "AblationCAM",
        "AttentionRelevance",
        "Deconvolution",
        "GuidedBackprop",
        "GuidedGradCAM",
        "IntegratedGradients",
        "KernelShap",
        "Lime",
        "Occlusion",
        "Rollout",
        "Saliency",
        "ScoreCAM",
        "SmoothGrad",
    ],
    "methods.variants": ["Variant"],
    "probe": ["Normalization", "Pixels", "Probe"],
    "probe.preprocess": ["Preprocess"],
    "render.overlay": ["overlay"],
    "robust": ["ConsistencyLoss", "FastFGSMLoss", "PGDLoss", "TRADESLoss"],
    "targets": ["CosineSimilarity", "EachLabel", "EmbeddingNorm", "Margin", "TopK"],
    "targets.detection": ["BoxScore"],
    "targets.segmentation": ["SegmentationScore"],
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_MODULE_OF)  # made of the table, so that no name is listed twice


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
