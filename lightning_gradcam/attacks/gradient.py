"""Gradient attacks: FGSM and PGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_gradcam.attacks.ascent import (
    Loss,
    Toward,
    ascend,
    compute_losses,
    compute_slope,
    make_loss,
    select_better,
)
from lightning_gradcam.attacks.norm_ball import NORMS, Ball, Norm
from lightning_gradcam.attacks.pixel_space import ATTACKS, check_range, preserve_state
from lightning_gradcam.probe.inference_tensors import without_inference_tensors

DEFAULT_BUDGETS: tuple[tuple[str, dict[Norm, float]], ...] = (
    ("gray images of up to 32 pixels", {"linf": 0.1, "l2": 1.5}),
    ("images of up to 64 pixels", {"linf": 8 / 255, "l2": 0.5}),
    ("larger images", {"linf": 4 / 255, "l2": 3.0}),
)
"""Values of ``eps`` common in papers, for images like Fashion-MNIST (for MNIST it is 0.3), CIFAR and ImageNet."""


@dataclass(frozen=True)
class FGSM:
    r"""Fast gradient sign method, one step of ``eps`` (Goodfellow et al. 2015, arXiv:1412.6572).

    .. math:: \operatorname{clip}_{[0, 1]}(x + \epsilon \operatorname{sign} \nabla_x \operatorname{CE}(f(x), y))

    Args:
        eps: Largest change of a pixel, in units of the range [0, 1]; None takes a value commonly used for that image
            size, see `DEFAULT_BUDGETS`.
        toward: A class to move towards (the loss is then minus its cross-entropy); None moves away from the label.

    Raises:
        ValueError: An argument is out of range.
    """

    eps: float | None = None
    toward: Toward | None = None

    def __post_init__(self) -> None:
        _check_arguments(self.eps, "linf", self.toward)

    def with_defaults(self, images: Tensor) -> FGSM:
        """Return the attack with unset arguments replaced by the defaults for these images."""
        return replace(self, eps=get_default_eps(images, "linf") if self.eps is None else self.eps)

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Attack images ``(N, C, *spatial)`` in [0, 1] with labels ``(N,)``; the model does not change.

        Raises:
            ValueError: Images do not lie in [0, 1].
        """
        eps = self.with_defaults(images).eps or 0.0
        check_range(images)
        with preserve_state(model), torch.inference_mode(False):
            images, labels = _to_leaves(images, labels)
            _, gradient = compute_slope(make_loss(model, images, labels, self.toward), images)
            return (images + eps * gradient.sign()).clamp(0, 1)


@dataclass(frozen=True)
class PGD:
    r"""Projected gradient descent, the iterated `FGSM` (Madry et al. 2018, arXiv:1706.06083).

    .. math:: x_{t+1} = \Pi_{B(x, \epsilon)} (x_t + \alpha \operatorname{sign} \nabla_x \operatorname{CE}(f(x_t), y))

    With the L2 norm, the gradient divided by its norm replaces the sign. The random start is the same shift for all
    images, so that the result for an image does not depend on the other images of its batch.

    Args:
        eps: Largest distance of an image in ``norm``, in units of the range [0, 1]; None takes a value commonly used
            for that image size, see `DEFAULT_BUDGETS`.
        steps: Number of steps.
        step_size: Length of a step, by default ``2.5 * eps / steps``.
        random_start: Whether to start at a random point of the ball instead of the image.
        norm: ``"linf"`` or ``"l2"``.
        restarts: Number of random starts; for every image, the result with the largest loss is returned.
        keep: ``"last"`` returns the last point, ``"best"`` the one with the largest loss on the way, which takes one
            more forward pass.
        toward: A class to move towards (the loss is then minus its cross-entropy); None moves away from the label.
        seed: Seed of the random starts. The same attack on the same weights returns the same images.

    Raises:
        ValueError: An argument is out of range.
    """

    eps: float | None = None
    steps: int = 10
    step_size: float | None = None
    random_start: bool = True
    norm: Norm = "linf"
    restarts: int = 1
    keep: Literal["last", "best"] = "last"
    toward: Toward | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_arguments(self.eps, self.norm, self.toward)
        for name, value in (("steps", self.steps), ("restarts", self.restarts)):
            if value < 1:
                raise ValueError(f"Expected `{name}` of at least 1, but got {value}.")
        if self.step_size is not None and not self.step_size >= 0:
            raise ValueError(f"Expected a `step_size` of at least 0, but got {self.step_size}.")
        if self.keep not in ("last", "best"):
            raise ValueError(f"Expected `keep` to be 'last' or 'best', but got {self.keep!r}.")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"Expected `random_start=True` for {self.restarts} restarts; they are identical without.")

    def with_defaults(self, images: Tensor) -> PGD:
        """Return the attack with unset arguments replaced by the defaults for these images."""
        eps = get_default_eps(images, self.norm) if self.eps is None else self.eps
        return replace(self, eps=eps, step_size=2.5 * eps / self.steps if self.step_size is None else self.step_size)

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Attack images ``(N, C, *spatial)`` in [0, 1] with labels ``(N,)``; the model does not change.

        Raises:
            ValueError: Images do not lie in [0, 1].
        """
        attack = self.with_defaults(images)
        ball, generator = Ball(attack.eps or 0.0, self.norm), torch.Generator().manual_seed(self.seed)
        check_range(images)
        with preserve_state(model), torch.inference_mode(False):
            images, labels = _to_leaves(images, labels)
            loss = make_loss(model, images, labels, self.toward)
            # One shift for all images, so that the result does not depend on the batch.
            shifts = [ball.sample_shifts(images[:1], generator) for _ in range(self.restarts)]
            starts = [(images + shift).clamp(0, 1) for shift in shifts] if self.random_start else [images]
            return select_highest(loss, images, starts, ball, attack)


def get_default_eps(images: Tensor, norm: Norm) -> float:
    """Return the budget of `DEFAULT_BUDGETS` for images ``(N, C, *spatial)``.

    >>> get_default_eps(torch.rand(1, 3, 32, 32), "linf") * 255, get_default_eps(torch.rand(1, 1, 28, 28), "linf")
    (8.0, 0.1)
    """
    side = max(images.shape[2:])
    kind = 0 if images.shape[1] == 1 and side <= 32 else 1 if side <= 64 else 2
    return DEFAULT_BUDGETS[kind][1][norm]


def select_highest(loss: Loss, images: Tensor, starts: Sequence[Tensor], ball: Ball, attack: PGD) -> Tensor:
    """Attack from several starts and return, for every image, the result with the largest loss.

    Args:
        loss: Loss to maximize.
        images: ``(N, C, *spatial)`` in [0, 1], the centers of the ball.
        starts: Starting points, at least one.
        ball: Bound on the distance to the images.
        attack: Steps, step size and ``keep``, without unset arguments.
    """
    best: tuple[Tensor, Tensor] | None = None
    for start in starts:
        end = ascend(loss, images, start, ball, attack.steps, attack.step_size or 0.0, attack.keep)
        if len(starts) == 1:
            return end  # no need to compute its loss
        best = select_better(best, end, compute_losses(loss, end))
    assert best is not None
    return best[0]


def _check_arguments(eps: float | None, norm: str, toward: Toward | None) -> None:
    if norm not in NORMS:
        raise ValueError(f"Expected `norm` to be {' or '.join(map(repr, NORMS))}, but got {norm!r}.")
    if eps is not None and not eps >= 0:
        raise ValueError(f"Expected an `eps` of at least 0, but got {eps}.")
    if isinstance(toward, str) and toward not in ("least_likely", "next"):
        raise ValueError(f"Expected `toward` to be None, a class, 'least_likely' or 'next', but got {toward!r}.")


def _to_leaves(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Detach images and labels, and copy inference tensors, which autograd rejects."""
    images, labels = without_inference_tensors(images, labels)
    return images.detach(), labels.detach()


ATTACKS.register("fgsm")(FGSM())
ATTACKS.register("pgd")(PGD())
