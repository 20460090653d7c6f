"""Clean images and attacked ones: what an attack does to predictions and to their explanations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_gradcam.attacks import Attack, attack_probe
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import degenerate_share
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.stability import mean_and_error, spearman, ssim, topk_overlap
from lightning_gradcam.targets import freeze_target
from lightning_gradcam.targets.logits import predictions

SIMILARITIES = {"adv_similarity": spearman, "adv_topk": topk_overlap, "adv_ssim": ssim}
"""What is measured between the maps of an image and of its attacked twin, by the curve's name."""


@dataclass(frozen=True)
class AttackedExplanation:
    """Attacked images and their explanation.

    Args:
        images: ``(N, C, *spatial)``, as the model takes them.
        explanation: Of the same classes as the clean images'.
    """

    images: Tensor
    explanation: Explanation

    def map(self, change: Callable[[Tensor], Tensor]) -> AttackedExplanation:
        """The same with each of its tensors changed."""
        return AttackedExplanation(change(self.images), self.explanation.map(change))

    @staticmethod
    def cat(parts: Sequence[AttackedExplanation]) -> AttackedExplanation:
        """Parts of a probe, put behind one another."""
        return AttackedExplanation(
            torch.cat([p.images for p in parts]), Explanation.cat([p.explanation for p in parts])
        )


@dataclass(frozen=True)
class AttackedExplainer:
    """A plan for images that are attacked first.

    Args:
        plan: How the attacked images are explained.
        attack: In pixels, see `attacks.Attack`.
    """

    plan: Explainer
    attack: Attack

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[AttackedExplanation]:
        """Attack the probe, away from its labels, and explain what comes out."""
        attacked = attack_probe(model, probe, self.attack, forward=self.plan.forward)
        return [AttackedExplanation(attacked.images, found) for found in self.plan(model, attacked, targets)]


def with_attack_labels(probe: Probe, clean: Explanation) -> Probe:
    """The probe with the classes that an attack moves away from: its labels, else what is predicted now."""
    return probe if probe.classes is not None else replace(probe, labels=clean.logits.argmax(1))


def freeze_to_clean(target: Target, clean: Explanation) -> Target:
    """The target for attacked images: the clean ones' class, also where the attack changes the prediction."""
    return freeze_target(target, clean.explained)


def measure_attack(clean: Explanation, attacked: Explanation, labels: Tensor | None) -> dict[str, Tensor]:
    """The numbers of an attack, 0-dimensional float32 tensors.

    Returns:
        For each of `SIMILARITIES` its mean over all images, and as ``..._held`` over those whose prediction is the
        same for the attacked image; NaN where no image gives a number. ``adv_degenerate`` is the share of attacked maps
        that cannot be read. All for the first layer under their plain names, for others as ``adv_similarity/layer3``.
        And ``adv_accuracy``, where there are labels.
    """
    numbers: dict[str, Tensor] = {}
    stays = is_prediction_kept(clean, attacked)
    for i, (key, maps) in enumerate(clean.maps.items()):
        suffix = f"/{key}" if i else ""
        for name, measure in SIMILARITIES.items():
            values = measure(maps, attacked.maps[key])
            numbers[f"{name}{suffix}"] = mean_and_error(values)[0]
            numbers[f"{name}_held{suffix}"] = mean_and_error(values.masked_fill(~stays, torch.nan))[0]
        numbers[f"adv_degenerate{suffix}"] = degenerate_share(attacked.map_status[key])
    if labels is not None and attacked.logits.shape[1]:
        numbers["adv_accuracy"] = (predictions(attacked.logits)[1] == labels).float().mean()
    return numbers


def is_prediction_kept(clean: Explanation, attacked: Explanation) -> Tensor:
    """``(N,)`` whether the prediction for the attacked image is that for the clean one."""
    return predictions(clean.logits)[1] == predictions(attacked.logits)[1]
