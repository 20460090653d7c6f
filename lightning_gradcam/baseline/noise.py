"""Explanations in batches, and how much they change with the batch size."""

from __future__ import annotations

from torch import nn

from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.stability import mean_and_error, spearman

BATCH_SIZE = 32
"""Images per forward pass, unless memory allows fewer."""


def explain_in_batches(
    explainer: Explainer, model: nn.Module, probe: Probe, target: Target, batch_size: int = BATCH_SIZE
) -> Explanation:
    """Return the explanation on the CPU."""
    return Chunks(batch_size)(explainer, model, probe, [target])[0].map(lambda tensor: tensor.detach().cpu())


def measure_noise(baseline: Explanation, explainer: Explainer, model: nn.Module, probe: Probe, target: Target) -> float:
    """Return how much the maps change with the batch size: 1 - the lowest mean rank correlation."""
    batch_sizes = {max(len(probe) // 2, 1), min(7, len(probe))}
    return max(
        _measure_change(baseline, explain_in_batches(explainer, model, probe, target, size)) for size in batch_sizes
    )


def _measure_change(baseline: Explanation, explanation: Explanation) -> float:
    correlations = [mean_and_error(spearman(maps, explanation.maps[key]))[0] for key, maps in baseline.maps.items()]
    return max((1 - float(mean) for mean in correlations if not mean.isnan()), default=0.0)
