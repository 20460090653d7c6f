"""Losses of adversarial training that look at predictions."""

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
    check_attack,
    check_weight,
    find_adversarial,
    sample_uniform,
    start_at_images,
    to_float32,
    to_trainable,
)
from lightning_gradcam.targets import require_logits

NEARBY = 1e-3
"""The deviation of TRADES' starts, from its authors' code: at the image itself, the divergence has no slope."""


@dataclass(frozen=True)
class PGDLoss:
    r"""Adversarial training (Madry et al. 2018, arXiv:1706.06083): the cross-entropy of attacked images.

    .. math:: \operatorname{CE}(f(x'), y), \qquad
        x' \approx \arg\max_{x' \in B(x, \epsilon)} \operatorname{CE}(f(x'), y)

    Args:
        attack: How the maximum is sought. Its ``seed`` is not used: random starts are drawn anew in every step, for
            each image on its own, from PyTorch's global generator.
        pixels: The normalisation of the images; None where they are pixels in [0, 1].

    Raises:
        TypeError: The attack is no `PGD`.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> PGDLoss(PGD(eps=0.1))(model, torch.rand(2, 1, 4, 4), torch.tensor([0, 2])).requires_grad
    True
    """

    attack: PGD = TEN_STEPS
    pixels: Normalization | None = None

    def __post_init__(self) -> None:
        check_attack(self.attack)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar; see `step`."""
        return self.step(model, images, labels).loss

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """The loss with the attacked images and their logits.

        Args:
            model: Called as ``model(images)``, with logits in what it returns; a LightningModule passes ``self``.
            images: ``(N, C, *spatial)``, as the model takes them.
            labels: ``(N,)`` classes.

        Raises:
            ValueError: Images do not lie in [0, 1] without their normalisation.
        """
        moved = self.attacked(model, images, labels)
        logits = require_logits(model(moved))
        return Step(F.cross_entropy(to_float32(logits), labels), moved, logits)

    def attacked(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The attacked images alone, which is all that a loss of one's own needs; arguments and errors as of `step`."""
        images, labels = to_trainable(images, labels)
        start = sample_uniform if self.attack.random_start else start_at_images
        return find_adversarial(
            model,
            images,
            self.attack,
            lambda space: make_loss(space, images, labels, self.attack.toward),
            start,
            self.pixels,
        )


@dataclass(frozen=True)
class FastFGSMLoss:
    r"""Fast adversarial training (Wong et al. 2020, arXiv:2001.03994): one step from a random start.

    .. math:: \operatorname{CE}(f(x'), y), \qquad x' = \Pi_{B(x, \epsilon)}\big(x_0
        + \alpha \operatorname{sign} \nabla \operatorname{CE}(f(x_0), y)\big), \qquad x_0 \sim U(B(x, \epsilon))

    It can overfit catastrophically: from one epoch to the next the model withstands this attack only, and PGD not at
    all. Watch ``gradcam/adv_accuracy`` of a `PGD`.

    Args:
        eps: Largest change of a pixel, in units of the range [0, 1]; None is what is usual for images of that size.
        step_size: The step, by default ``1.25 * eps``.
        pixels: The normalisation of the images; None where they are pixels in [0, 1].

    Raises:
        ValueError: An argument is out of range.
    """

    eps: float | None = None
    step_size: float | None = None
    pixels: Normalization | None = None

    def __post_init__(self) -> None:
        self._loss()

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar; see `step`."""
        return self.step(model, images, labels).loss

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """The loss with the attacked images and their logits; arguments and errors as of `PGDLoss.step`."""
        return self._loss(images).step(model, images, labels)

    def _loss(self, images: Tensor | None = None) -> PGDLoss:
        attack = PGD(self.eps, steps=1, step_size=self.step_size)
        if images is not None:
            eps = attack.settled(images).eps or 0.0
            attack = PGD(eps, steps=1, step_size=1.25 * eps if self.step_size is None else self.step_size)
        return PGDLoss(attack, self.pixels)


@dataclass(frozen=True)
class TRADESLoss:
    r"""TRADES (Zhang et al. 2019, arXiv:1901.08573): accuracy on clean images, and predictions that stay.

    .. math:: \operatorname{CE}(f(x), y) + \beta \operatorname{KL}(f(x) \,\|\, f(x')), \qquad
        x' \approx \arg\max_{x' \in B(x, \epsilon)} \operatorname{KL}(f(x) \,\|\, f(x'))

    Args:
        attack: How the maximum is sought, beginning at the image with noise of `NEARBY`.
        beta: Weight of the divergence, the paper's ``1 / lambda``: 1 to 6 there.
        pixels: The normalisation of the images; None where they are pixels in [0, 1].

    Raises:
        TypeError: The attack is no `PGD`.
        ValueError: ``beta`` is negative, or the attack is targeted or begins at the image itself.
    """

    attack: PGD = TEN_STEPS
    beta: float = 6.0
    pixels: Normalization | None = None

    def __post_init__(self) -> None:
        check_attack(self.attack)
        check_weight("beta", self.beta)
        if self.attack.toward is not None or not self.attack.random_start:
            raise ValueError(
                "Expected an untargeted attack with `random_start=True`: TRADES moves away from the clean prediction, "
                f"and at the image itself the divergence has no slope. Got {self.attack}."
            )

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar; see `step`."""
        return self.step(model, images, labels).loss

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """The loss with the attacked images and both logits; arguments and errors as of `PGDLoss.step`."""
        images, labels = to_trainable(images, labels)

        def objective(space: Callable[[Tensor], Tensor]) -> Loss:
            with torch.no_grad():
                clean = require_logits(model(images))
            return lambda place: kl_divergence(clean, space(place))

        moved = find_adversarial(model, images, self.attack, objective, _nearby, self.pixels)
        clean_logits, logits = require_logits(model(images)), require_logits(model(moved))
        loss = (
            F.cross_entropy(to_float32(clean_logits), labels) + self.beta * kl_divergence(clean_logits, logits).mean()
        )
        return Step(loss, moved, logits, clean_logits)


def kl_divergence(clean: Tensor, logits: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of the attacked from the clean prediction, ``(N,)`` from logits ``(N, K)``.

    >>> float(kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]])))
    0.0
    """
    # Logarithms on both sides: with a probability that rounds to zero, the other form's gradient is NaN.
    p, q = to_float32(clean).log_softmax(1), to_float32(logits).log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def _nearby(images: Tensor, ball: Ball) -> Tensor:
    return ball.project(images, images + NEARBY * torch.randn_like(images))
