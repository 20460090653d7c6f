"""Losses of adversarial training on predictions: PGD, fast FGSM, and TRADES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam.attacks import PGD, Ball
from lightning_gradcam.attacks.ascent import Loss, make_loss
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.robust.step import (
    TEN_STEPS,
    Step,
    TrainingLoss,
    check_attack,
    check_weight,
    find_adversarial,
    sample_uniform,
    start_at_images,
    to_float32,
    to_trainable,
)
from lightning_gradcam.targets import require_logits

TRADES_START_NOISE = 1e-3
"""Standard deviation of TRADES' starts, from its authors' code: at the image itself, the divergence has no gradient."""


@dataclass(frozen=True)
class PGDLoss(TrainingLoss):
    r"""Adversarial training (Madry et al. 2018, arXiv:1706.06083): the cross-entropy of attacked images.

    .. math:: \operatorname{CE}(f(x'), y), \qquad
        x' \approx \arg\max_{x' \in B(x, \epsilon)} \operatorname{CE}(f(x'), y)

    Args:
        attack: Attack that approximates the maximum. Its ``seed`` is not used: random starts are sampled from PyTorch's
            global generator, newly for every image in every step.
        pixels: Normalization of the images; None if they are pixels in [0, 1].

    Raises:
        TypeError: The attack is not a `PGD`.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> PGDLoss(PGD(eps=0.1))(model, torch.rand(2, 1, 4, 4), torch.tensor([0, 2])).requires_grad
    True
    """

    attack: PGD = TEN_STEPS
    pixels: Normalization | None = None

    def __post_init__(self) -> None:
        check_attack(self.attack)

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """Return the cross-entropy with the attacked images and their logits."""
        attacked = self.attack_images(model, images, labels)
        logits = require_logits(model(attacked))
        return Step(F.cross_entropy(to_float32(logits), labels), attacked, logits)

    def attack_images(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the attacked images only, for a custom loss; arguments and errors as for `step`."""
        images, labels = to_trainable(images, labels)
        start = sample_uniform if self.attack.random_start else start_at_images
        return find_adversarial(
            model,
            images,
            self.attack,
            lambda pixel_model: make_loss(pixel_model, images, labels, self.attack.toward),
            start,
            self.pixels,
        )


@dataclass(frozen=True)
class FastFGSMLoss(TrainingLoss):
    r"""Fast adversarial training (Wong et al. 2020, arXiv:2001.03994): one step from a random start.

    .. math:: \operatorname{CE}(f(x'), y), \qquad x' = \Pi_{B(x, \epsilon)}\big(x_0
        + \alpha \operatorname{sign} \nabla \operatorname{CE}(f(x_0), y)\big), \qquad x_0 \sim U(B(x, \epsilon))

    It can overfit catastrophically: from one epoch to the next, the model resists this attack only, and not PGD at
    all. Monitor ``gradcam/adv_accuracy`` of a `PGD`.

    Args:
        eps: Largest change of a pixel, in units of the range [0, 1]; None takes a value commonly used for that image
            size.
        step_size: Length of the step, by default ``1.25 * eps``.
        pixels: Normalization of the images; None if they are pixels in [0, 1].

    Raises:
        ValueError: An argument is out of range.
    """

    eps: float | None = None
    step_size: float | None = None
    pixels: Normalization | None = None

    def __post_init__(self) -> None:
        self._build_loss()  # checks the arguments

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """Return the cross-entropy with the attacked images and their logits."""
        return self._build_loss(images).step(model, images, labels)

    def _build_loss(self, images: Tensor | None = None) -> PGDLoss:
        """Return the equivalent `PGDLoss`, with defaults for these images."""
        attack = PGD(self.eps, steps=1, step_size=self.step_size)
        if images is not None:
            eps = attack.with_defaults(images).eps or 0.0
            attack = PGD(eps, steps=1, step_size=1.25 * eps if self.step_size is None else self.step_size)
        return PGDLoss(attack, self.pixels)


@dataclass(frozen=True)
class TRADESLoss(TrainingLoss):
    r"""TRADES (Zhang et al. 2019, arXiv:1901.08573): accuracy on clean images, and stable predictions.

    .. math:: \operatorname{CE}(f(x), y) + \beta \operatorname{KL}(f(x) \,\|\, f(x')), \qquad
        x' \approx \arg\max_{x' \in B(x, \epsilon)} \operatorname{KL}(f(x) \,\|\, f(x'))

    Args:
        attack: Attack that approximates the maximum, starting at the image with noise of `TRADES_START_NOISE`.
        beta: Weight of the divergence, the paper's ``1 / lambda``, which is 1 to 6 there.
        pixels: Normalization of the images; None if they are pixels in [0, 1].

    Raises:
        TypeError: The attack is not a `PGD`.
        ValueError: ``beta`` is negative, or the attack is targeted or starts at the image itself.
    """

    attack: PGD = TEN_STEPS
    beta: float = 6.0
    pixels: Normalization | None = None

    def __post_init__(self) -> None:
        check_attack(self.attack)
        check_weight("beta", self.beta)
        if self.attack.toward is not None or not self.attack.random_start:
            raise ValueError(
                f"Expected `attack` to be untargeted with `random_start=True`, but got {self.attack}. TRADES moves "
                "away from the clean prediction, and at the image itself the divergence has no gradient."
            )

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """Return the cross-entropy plus the divergence, with the attacked images and both logits."""
        images, labels = to_trainable(images, labels)

        def make_divergence(pixel_model: Callable[[Tensor], Tensor]) -> Loss:
            with torch.no_grad():
                clean = require_logits(model(images))
            return lambda points: kl_divergence(clean, pixel_model(points))

        attacked = find_adversarial(model, images, self.attack, make_divergence, _start_near_images, self.pixels)
        clean_logits, logits = require_logits(model(images)), require_logits(model(attacked))
        accuracy_loss = F.cross_entropy(to_float32(clean_logits), labels)
        loss = accuracy_loss + self.beta * kl_divergence(clean_logits, logits).mean()
        return Step(loss, attacked, logits, clean_logits)


def kl_divergence(clean: Tensor, logits: Tensor) -> Tensor:
    r"""Return the Kullback-Leibler divergence ``(N,)`` of the attacked from the clean logits ``(N, K)``.

    >>> float(kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]])))
    0.0
    """
    # Log-probabilities on both sides: otherwise the gradient is NaN if a probability rounds to zero.
    p, q = to_float32(clean).log_softmax(1), to_float32(logits).log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def _start_near_images(images: Tensor, ball: Ball) -> Tensor:
    return ball.project(images, images + TRADES_START_NOISE * torch.randn_like(images))
