"""Which pixels a score hangs on, by its gradient there: saliency, and what makes it calmer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_gradcam.capture.isolation import reseed
from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.methods.base import METHODS
from lightning_gradcam.methods.captum_adapter import (
    AT_ONCE,
    adapt_for_captum,
    describe_method,
    make_gradient_func,
    max_over_channels,
)
from lightning_gradcam.methods.neuron import Neuron, name_method, score_neuron, to_neuron


@dataclass(frozen=True)
class Saliency:
    r"""The gradient at the pixels: how much the score changes with each of them.

    .. math:: \max_c |\partial S / \partial x_c|

    Simonyan et al. 2014, arXiv:1312.6034.

    Args:
        neuron: ``(channel, i, j)`` of each layer explained, instead of the target; evidence has the layer's key then.

    Raises:
        TypeError: The neuron is no sequence of integers.
        ValueError: It has no place, or one under 0.

    >>> Saliency(), Saliency(neuron=(5, 2, 2)).name
    (Saliency(neuron=None), 'saliency of neuron 5 at 2, 2')
    """

    neuron: Neuron | None = None
    extra: ClassVar[str] = "captum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "neuron", to_neuron(self.neuron))

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return name_method("saliency", self.neuron)

    @property
    def place(self) -> str | None:
        """Of the class at the pixels; a neuron has a layer."""
        return PIXELS if self.neuron is None else None

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *spatial)`` at the pixels, never negative."""
        found = compute_input_gradients(passes, self.name, self.neuron)
        return {key: max_over_channels(gradients) for key, gradients in found.items()}


def compute_input_gradients(passes: CapturedPass, name: str, neuron: Neuron | None = None) -> Mapping[str, Tensor]:
    """The gradients ``(n, C, *spatial)`` of the target at the pixels; or per layer, those of its neuron."""
    from captum import attr

    scores = {PIXELS: None} if neuron is None else {key: score_neuron(passes, key, neuron) for key in passes.layers}
    found: dict[str, Tensor] = {}
    for key, score in scores.items():
        with adapt_for_captum(passes, name, len(passes.probe), score) as counted:
            engine = attr.Saliency(counted)
            engine.gradient_func = make_gradient_func
            parts = [
                engine.attribute(images.clone().requires_grad_(), abs=False, additional_forward_args=(rows,))
                for images, rows in counted.portions()
            ]
        found[key] = torch.cat(parts)
    return found


@dataclass(frozen=True)
class SmoothGrad:
    r"""Saliency of the mean gradient over noisy copies of the image.

    .. math:: \max_c \Big|\frac{1}{n} \sum_i \partial S(x + \varepsilon_i) / \partial x_c\Big|, \qquad
        \varepsilon_i \sim \mathcal N\big(0, (\text{noise} \cdot (\max x - \min x))^2\big)

    Smilkov et al. 2017, arXiv:1706.03825. The noise is the same for each image and in each look.

    Args:
        samples: How many noisy copies of an image.
        noise: Standard deviation, as a share of the image's range.

    Raises:
        ValueError: There are no samples, or the noise is not over 0.
    """

    samples: int = 50
    noise: float = 0.15
    extra: ClassVar[str] = "captum"
    place: ClassVar[str] = PIXELS

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.noise > 0:
            raise ValueError(f"Expected `samples` of at least 1 and `noise` over 0, but got {self!r}.")

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return describe_method("smoothgrad", self)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *spatial)`` at the pixels, never negative."""
        from captum import attr

        found = []
        with adapt_for_captum(passes, self.name, len(passes.probe) * self.samples) as score:
            engine = attr.Saliency(score)
            engine.gradient_func = make_gradient_func
            for image, row in score.portions(1):  # one by one, so that no image's noise hangs on its neighbours
                reseed(image.device)
                found += [
                    attr.NoiseTunnel(engine).attribute(
                        image,
                        nt_samples=self.samples,
                        nt_samples_batch_size=min(AT_ONCE, self.samples),
                        stdevs=self.noise * float(image.max() - image.min()),
                        abs=False,
                        additional_forward_args=(row,),
                    )
                ]
        return {PIXELS: max_over_channels(torch.cat(found))}


@dataclass(frozen=True)
class IntegratedGradients:
    r"""What each pixel adds to the score on the straight way from a baseline: the sum over all is the difference.

    .. math:: \sum_c (x_c - b) \int_0^1 \partial S(b + \alpha (x - b)) / \partial x_c \, d\alpha

    Sundararajan et al. 2017, arXiv:1703.01365.

    Args:
        steps: Of the integral, by the rule of Gauss and Legendre.
        baseline: The value, as the model takes it, of an image that says nothing: 0 is the mean colour of normalised
            images, and black of others.

    Raises:
        ValueError: There are no steps.
    """

    steps: int = 50
    baseline: float = 0.0
    extra: ClassVar[str] = "captum"
    place: ClassVar[str] = PIXELS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Expected `steps` of at least 1, but got {self!r}.")

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return describe_method("integrated_gradients", self)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Signed evidence ``(n, *spatial)`` at the pixels."""
        from captum import attr

        with adapt_for_captum(passes, self.name, len(passes.probe) * self.steps) as score:
            engine = attr.IntegratedGradients(score)
            engine.gradient_func = make_gradient_func
            found = [
                engine.attribute(
                    images,
                    self.baseline,
                    additional_forward_args=(rows,),
                    n_steps=self.steps,
                    internal_batch_size=AT_ONCE,
                )
                for images, rows in score.portions()
            ]
        return {PIXELS: torch.cat(found).sum(1)}


METHODS.register("saliency")(Saliency())
METHODS.register("integrated_gradients")(IntegratedGradients())
METHODS.register("smoothgrad")(SmoothGrad())
