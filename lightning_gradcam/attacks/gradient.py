"""Attacks that follow the gradient of the loss."""

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

USUAL: tuple[tuple[str, dict[Norm, float]], ...] = (
    ("grey images of up to 32 pixels", {"linf": 0.1, "l2": 1.5}),
    ("images of up to 64 pixels", {"linf": 8 / 255, "l2": 0.5}),
    ("larger images", {"linf": 4 / 255, "l2": 3.0}),
)
"""The budgets that papers use, for images like Fashion-MNIST's (MNIST's is .3), CIFAR's and ImageNet's."""


@dataclass(frozen=True)
class FGSM:
    r"""Fast gradient sign method, one step of ``eps`` (Goodfellow et al. 2015, arXiv:1412.6572).

    .. math:: \operatorname{clip}_{[0, 1]}(x + \epsilon \operatorname{sign} \nabla_x \operatorname{CE}(f(x), y))

    Args:
        eps: Largest change of a pixel, in units of the range [0, 1]; None is what is usual for images of that size,
            see `USUAL`.
        toward: A class to move towards (the loss is minus its cross-entropy then); None moves away from the label.

    Raises:
        ValueError: An argument is out of range.
    """

    eps: float | None = None
    toward: Toward | None = None

    def __post_init__(self) -> None:
        _check(self.eps, "linf", self.toward)

    def settled(self, images: Tensor) -> FGSM:
        """The same with what was left open decided for such images."""
        return replace(self, eps=default_eps(images, "linf") if self.eps is None else self.eps)

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """The attacked images; gradients go to the images only, and a module is left as it was found.

        Raises:
            ValueError: Images do not lie in [0, 1].
        """
        eps = self.settled(images).eps or 0.0
        check_range(images)
        with preserve_state(model), torch.inference_mode(False):
            images, labels = _ordinary(images), _ordinary(labels)
            _, gradient = compute_slope(make_loss(model, images, labels, self.toward), images)
            return (images + eps * gradient.sign()).clamp(0, 1)


@dataclass(frozen=True)
class PGD:
    r"""Projected gradient descent, the iterated `FGSM` (Madry et al. 2018, arXiv:1706.06083).

    .. math:: x_{t+1} = \Pi_{B(x, \epsilon)} (x_t + \alpha \operatorname{sign} \nabla_x \operatorname{CE}(f(x_t), y))

    and with the L2 norm, the gradient at length one in the sign's place. The random start is the same shift for all
    images, so that what happens to an image does not depend on those that it shares a batch with.

    Args:
        eps: How far an image may be moved in ``norm``, in units of the range [0, 1]; None is what is usual for images
            of that size, see `USUAL`.
        steps: How many.
        step_size: By default ``2.5 * eps / steps``.
        random_start: Whether to begin anywhere in the ball instead of at the image.
        norm: ``"linf"`` or ``"l2"``.
        restarts: How many beginnings; per image, the one that ends with the largest loss counts.
        keep: ``"last"`` takes the place where the steps end, ``"best"`` the one with the largest loss on the way, for
            one forward pass more.
        toward: A class to move towards (the loss is minus its cross-entropy then); None moves away from the label.
        seed: Of the random starts. The same attack on the same weights gives the same images.

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
        _check(self.eps, self.norm, self.toward)
        for name, value in (("steps", self.steps), ("restarts", self.restarts)):
            if value < 1:
                raise ValueError(f"Expected `{name}` of at least 1, but got {value}.")
        if self.step_size is not None and not self.step_size >= 0:
            raise ValueError(f"Expected a `step_size` of at least 0, but got {self.step_size}.")
        if self.keep not in ("last", "best"):
            raise ValueError(f"Expected `keep` to be 'last' or 'best', but got {self.keep!r}.")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"Expected `random_start=True` for {self.restarts} restarts: without, all are the same.")

    def settled(self, images: Tensor) -> PGD:
        """The same with what was left open decided for such images."""
        eps = default_eps(images, self.norm) if self.eps is None else self.eps
        return replace(self, eps=eps, step_size=2.5 * eps / self.steps if self.step_size is None else self.step_size)

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """The attacked images; gradients go to the images only, and a module is left as it was found.

        Raises:
            ValueError: Images do not lie in [0, 1].
        """
        settled = self.settled(images)
        ball, generator = Ball(settled.eps or 0.0, self.norm), torch.Generator().manual_seed(self.seed)
        check_range(images)
        with preserve_state(model), torch.inference_mode(False):
            images, labels = _ordinary(images), _ordinary(labels)
            loss = make_loss(model, images, labels, self.toward)
            # One shift for all images, so that nothing hangs on the batch.
            shifts = [ball.shifts(images[:1], generator) for _ in range(self.restarts)]
            starts = [(images + shift).clamp(0, 1) for shift in shifts] if self.random_start else [images]
            return select_highest(loss, images, starts, ball, settled)


def default_eps(images: Tensor, norm: Norm) -> float:
    """The budget of `USUAL` for images ``(N, C, *spatial)``.

    >>> default_eps(torch.rand(1, 3, 32, 32), "linf") * 255, default_eps(torch.rand(1, 1, 28, 28), "linf")
    (8.0, 0.1)
    """
    side = max(images.shape[2:])
    kind = 0 if images.shape[1] == 1 and side <= 32 else 1 if side <= 64 else 2
    return USUAL[kind][1][norm]


def select_highest(loss: Loss, images: Tensor, starts: Sequence[Tensor], ball: Ball, attack: PGD) -> Tensor:
    """Per image, of the ends that an attack's steps reach from several starts, the one with the largest loss.

    Args:
        loss: What is made larger.
        images: ``(N, C, *spatial)`` in [0, 1], the ball's centres.
        starts: Where to begin, at least one.
        ball: How far to go.
        attack: A settled one, for its steps.
    """
    found: tuple[Tensor, Tensor] | None = None
    for start in starts:
        end = ascend(loss, images, start, ball, attack.steps, attack.step_size or 0.0, attack.keep)
        if len(starts) == 1:
            return end  # nothing to choose from, so its loss need not be known
        found = select_better(found, end, compute_losses(loss, end))
    assert found is not None
    return found[0]


def _check(eps: float | None, norm: str, toward: Toward | None) -> None:
    if norm not in NORMS:
        raise ValueError(f"Expected `norm` to be {' or '.join(map(repr, NORMS))}, but got {norm!r}.")
    if eps is not None and not eps >= 0:
        raise ValueError(f"Expected an `eps` of at least 0, but got {eps}.")
    if isinstance(toward, str) and toward not in ("least_likely", "next"):
        raise ValueError(f"Expected `toward` to be None, a class, 'least_likely' or 'next', but got {toward!r}.")


def _ordinary(tensor: Tensor) -> Tensor:
    """Autograd takes no tensor that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


ATTACKS.register("fgsm")(FGSM())
ATTACKS.register("pgd")(PGD())
