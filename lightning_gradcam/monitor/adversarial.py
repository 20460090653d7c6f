"""Clean and attacked images: what an attack changes in the predictions and in their explanations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.attacks import Attack, attack_probe
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import compute_degenerate_fraction
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.stability import mean_and_error, spearman, ssim, topk_overlap
from lightning_gradcam.targets import freeze_target
from lightning_gradcam.targets.logits import list_items, predictions

SIMILARITIES = {"adv_similarity": spearman, "adv_topk": topk_overlap, "adv_ssim": ssim}
"""The similarities between the maps of a clean and an attacked image, by the curve's name."""


@dataclass(frozen=True)
class AttackedExplanation:
    """Attacked images and their explanation.

    Args:
        images: ``(N, C, *spatial)``, preprocessed for the model.
        explanation: The explanation of the same classes as for the clean images.
    """

    images: Tensor
    explanation: Explanation

    def map(self, change: Callable[[Tensor], Tensor]) -> AttackedExplanation:
        """Apply a function to each tensor."""
        return AttackedExplanation(change(self.images), self.explanation.map(change))

    @staticmethod
    def cat(parts: Sequence[AttackedExplanation]) -> AttackedExplanation:
        """Concatenate the results of consecutive images."""
        return AttackedExplanation(
            torch.cat([p.images for p in parts]), Explanation.cat([p.explanation for p in parts])
        )


@dataclass(frozen=True)
class AttackedExplainer:
    """An explainer that attacks the images first.

    Args:
        explainer: Explains the attacked images.
        attack: An attack on pixels, see `attacks.Attack`.
    """

    explainer: Explainer
    attack: Attack

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[AttackedExplanation]:
        """Attack the probe, away from its labels, and explain the attacked images."""
        attacked = attack_probe(model, probe, self.attack, forward=self._call_head)
        explanations = self.explainer(model, attacked, targets)
        return [AttackedExplanation(attacked.images, explanation) for explanation in explanations]

    def _call_head(self, model: nn.Module, probe: Probe) -> Any:
        """Return what is attacked: the output, or of an output with several heads the explained one."""
        output, head = self.explainer.forward(model, probe), self.explainer.output_kind.head
        return dict(list_items(output))[head] if head else output


def with_attack_labels(probe: Probe, clean: Explanation) -> Probe:
    """Return the probe with the classes that an attack moves away from: its labels, else the current predictions."""
    return probe if probe.classes is not None else replace(probe, labels=clean.logits.argmax(1))


def freeze_to_clean(target: Target, clean: Explanation) -> Target:
    """Return a target that explains the clean images' classes, also if the attack changes the prediction."""
    return freeze_target(target, clean.explained)


def measure_attack(clean: Explanation, attacked: Explanation, labels: Tensor | None) -> dict[str, Tensor]:
    """Return the numbers of an attack, 0-dimensional float32 tensors.

    Args:
        clean: The explanation of the clean images.
        attacked: The explanation of the attacked images.
        labels: ``(N,)`` classes, if there are labels.

    Returns:
        For each of `SIMILARITIES` its mean over all images, and as ``..._held`` over those whose prediction the attack
        does not change; NaN if no image has a value. ``adv_degenerate`` is the fraction of attacked maps that are
        degenerate. The first layer has the plain names, others have names such as ``adv_similarity/layer3``.
        ``adv_accuracy`` is there if there are labels.
    """
    numbers: dict[str, Tensor] = {}
    is_kept = is_prediction_kept(clean, attacked)
    for index, (key, maps) in enumerate(clean.maps.items()):
        suffix = f"/{key}" if index else ""
        for name, measure in SIMILARITIES.items():
            values = measure(maps, attacked.maps[key])
            numbers[f"{name}{suffix}"] = mean_and_error(values)[0]
            numbers[f"{name}_held{suffix}"] = mean_and_error(values.masked_fill(~is_kept, torch.nan))[0]
        numbers[f"adv_degenerate{suffix}"] = compute_degenerate_fraction(attacked.map_status[key])
    if labels is not None and attacked.logits.shape[1]:
        numbers["adv_accuracy"] = (predictions(attacked.logits)[1] == labels).float().mean()
    return numbers


def is_prediction_kept(clean: Explanation, attacked: Explanation) -> Tensor:
    """Return ``(N,)`` whether the prediction for the attacked image is that for the clean one."""
    return predictions(clean.logits)[1] == predictions(attacked.logits)[1]
