"""Attacks: from a probe to an attacked probe. They see pixels in [0, 1], so that eps means pixels everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam.isolation import isolated
from lightning_gradcam.probe import Forward, Pixels, Probe
from lightning_gradcam.registry import Registry
from lightning_gradcam.targets import logits_of

Attack: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""``(pixel-space model, images in [0, 1], labels) -> images in [0, 1]``."""

ATTACKS = Registry[Attack]("attack")
"""Attacks by name; ``ATTACKS.register("name")(attack)`` adds one."""


@dataclass(frozen=True)
class PixelSpace:
    """A model that takes pixels in [0, 1] and returns logits: the normalisation is inside.

    Args:
        model: Takes normalised images.
        pixels: Their normalisation; None where the model takes pixels.
        probe: The rows beside the images, which ``forward`` may need.
        forward: How the model is called; by default ``model(probe.images)``.
    """

    model: nn.Module
    pixels: Pixels | None
    probe: Probe
    forward: Forward | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, *spatial)`` in [0, 1]."""
        rows = replace(self.probe, images=images if self.pixels is None else self.pixels.normalise(images))
        return logits_of(self.forward(self.model, rows) if self.forward else self.model(rows.images))


@dataclass(frozen=True)
class FGSM:
    r"""Fast gradient sign method, one step of ``eps`` (Goodfellow et al. 2015, arXiv:1412.6572).

    .. math:: \operatorname{clip}_{[0, 1]}(x + \epsilon \operatorname{sign} \nabla_x \operatorname{CE}(f(x), y))

    Args:
        eps: Largest change of a pixel, in units of the range [0, 1].
    """

    eps: float = 8 / 255

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """The attacked images; gradients go to the images only."""
        with torch.enable_grad():
            start = images.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), labels, reduction="sum"), start)
        return (images + self.eps * gradient.sign()).clamp(0, 1)


ATTACKS.register("fgsm")(FGSM())


def attack_probe(model: nn.Module, probe: Probe, attack: str | Attack, *, forward: Forward | None = None) -> Probe:
    """The probe with attacked images, normalised as before; the model is left as it was found.

    Args:
        model: Takes the probe's images.
        probe: With labels ``(N,)``; with ``pixels`` where its images are normalised.
        attack: A name, or a callable of ``(pixel-space model, images in [0, 1], labels)``.
        forward: How the model is called; by default ``model(probe.images)``.

    Raises:
        ValueError: The probe has no labels, its images do not lie in [0, 1] without their normalisation, or no attack
            has that name.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> probe = Probe(torch.rand(3, 1, 4, 4), labels=torch.tensor([0, 1, 0]))
    >>> attacked = attack_probe(model, probe, FGSM(eps=0.1))
    >>> bool((attacked.images - probe.images).abs().max() <= 0.1 + 1e-6)
    True
    """
    probe = probe.ordinary()
    labels = probe.classes
    if labels is None:
        raise ValueError("Expected a probe with labels of shape (N,): an attack moves away from them.")
    clean = probe.images if probe.pixels is None else probe.pixels.restore(probe.images)
    low, high = torch.stack(clean.aminmax()).tolist()
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"Expected images in [0, 1], but got {low:.3g} to {high:.3g}. Where they are normalised, say how: "
            "`Probe(..., pixels=Pixels(mean, std))`."
        )
    chosen = ATTACKS.named(attack) if isinstance(attack, str) else attack
    with isolated(model):
        attacked = chosen(PixelSpace(model, probe.pixels, probe, forward), clean.clamp(0, 1), labels).detach()
    return replace(probe, images=attacked if probe.pixels is None else probe.pixels.normalise(attacked))
