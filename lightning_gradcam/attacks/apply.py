"""From a probe to an attacked probe."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_gradcam.attacks.pixel_space import ATTACKS, Attack, PixelSpace, check_range
from lightning_gradcam.capture.isolation import frozen, isolated
from lightning_gradcam.probe.probe import Probe, restore_pixels
from lightning_gradcam.probe.types import Forward


def attack_probe(
    model: nn.Module,
    probe: Probe,
    attack: str | Attack,
    *,
    forward: Forward | None = None,
    classes: Tensor | None = None,
) -> Probe:
    """The probe with attacked images, normalised as before; the model is left as it was found.

    Args:
        model: Takes the probe's images.
        probe: With labels ``(N,)``; with ``pixels`` where its images are normalised.
        attack: A name, or a callable of ``(pixel-space model, images in [0, 1], labels)``.
        forward: How the model is called; by default ``model(probe.images)``.
        classes: ``(N,)`` to move away from, instead of the labels.

    Raises:
        ValueError: There are no classes, the images do not lie in [0, 1] without their normalisation, the attack
            returned something else than as many images, or no attack has that name.

    >>> from lightning_gradcam.attacks import FGSM
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> probe = Probe(torch.rand(3, 1, 4, 4), labels=torch.tensor([0, 1, 0]))
    >>> attacked = attack_probe(model, probe, FGSM(eps=0.1))
    >>> bool((attacked.images - probe.images).abs().max() <= 0.1 + 1e-6)
    True
    """
    probe = probe.without_inference_tensors()
    classes = probe.classes if classes is None else classes
    if classes is None:
        raise ValueError("Expected a probe with labels of shape (N,): an attack moves away from them.")
    clean = restore_pixels(probe)
    check_range(clean)
    with isolated(model), frozen(model), torch.enable_grad():
        attacked = coerce_attack(attack)(PixelSpace(model, probe.pixels, probe, forward), clean.clamp(0, 1), classes)
    if not isinstance(attacked, Tensor) or attacked.shape != clean.shape:
        what = f"shape {tuple(attacked.shape)}" if isinstance(attacked, Tensor) else type(attacked).__name__
        raise ValueError(f"Expected images of shape {tuple(clean.shape)} from the attack, but got {what}.")
    check_range(attacked)
    attacked = attacked.detach()
    return replace(probe, images=attacked if probe.pixels is None else probe.pixels.normalize(attacked))


def coerce_attack(attack: str | Attack) -> Attack:
    """The attack of that name, or the callable itself.

    Raises:
        ValueError: No attack has that name.
        TypeError: It is neither a name nor callable.
    """
    if isinstance(attack, str):
        return ATTACKS.resolve(attack)
    if not callable(attack):
        raise TypeError(
            "Expected an attack's name, or a callable of (pixel-space model, images in [0, 1], labels), but got "
            f"{attack!r}. Names: {', '.join(ATTACKS)}."
        )
    return attack
