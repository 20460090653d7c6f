"""Gradients of the score at the pixels: saliency, SmoothGrad and integrated gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.capture.random_state import reseed
from lightning_gradcam.methods.base import METHODS, BasePassMethod
from lightning_gradcam.methods.captum_adapter import BATCH_SIZE, adapt_for_captum, compute_image_gradients
from lightning_gradcam.methods.neuron import Neuron, name_method, score_neuron, to_neuron
from lightning_gradcam.methods.pixel_method import PixelMethod, max_over_channels


@dataclass(frozen=True)
class InputGradientMethod(BasePassMethod):
    """Base class of the methods that map a gradient at the pixels, of the target or of a single neuron.

    Args:
        neuron: ``(channel, i, j)`` of each explained layer, instead of the target; evidence then has the layer's key.

    Raises:
        TypeError: The neuron is not a sequence of integers.
        ValueError: The neuron has no position, or a negative number.
    """

    neuron: Neuron | None = None
    requires: ClassVar[str] = "captum"
    base_name: ClassVar[str]
    """The registered name, to which `name` adds the neuron."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "neuron", to_neuron(self.neuron))

    @property
    def name(self) -> str:
        """The name in figures and keys."""
        return name_method(self.base_name, self.neuron)

    @property
    def location(self) -> str | None:
        """The pixels for the target; None for a neuron, whose evidence has its layer's key."""
        return PIXELS if self.neuron is None else None

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return non-negative evidence ``(n, *spatial)`` at the pixels."""
        gradients_by_key = self._compute_gradients(passes)
        return {key: max_over_channels(gradients) for key, gradients in gradients_by_key.items()}

    def _compute_gradients(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Compute the gradients ``(n, C, *spatial)`` per key; subclasses change the backward pass here."""
        return compute_input_gradients(passes, self.name, self.neuron)


@dataclass(frozen=True)
class Saliency(InputGradientMethod):
    r"""Saliency map: the largest absolute gradient of the score over the channels of each pixel.

    .. math:: \max_c |\partial S / \partial x_c|

    Simonyan et al. 2014, arXiv:1312.6034.

    Args:
        neuron: ``(channel, i, j)`` of each explained layer, instead of the target; evidence then has the layer's key.

    Raises:
        TypeError: The neuron is not a sequence of integers.
        ValueError: The neuron has no position, or a negative number.

    >>> Saliency(), Saliency(neuron=(5, 2, 2)).name
    (Saliency(neuron=None), 'saliency of neuron 5 at 2, 2')
    """

    base_name: ClassVar[str] = "saliency"


def compute_input_gradients(passes: CapturedPass, name: str, neuron: Neuron | None = None) -> Mapping[str, Tensor]:
    """Compute the gradients ``(n, C, *spatial)`` at the pixels, of the target or of each layer's neuron."""
    from captum import attr

    scores = {PIXELS: None} if neuron is None else {key: score_neuron(passes, key, neuron) for key in passes.layers}
    gradients: dict[str, Tensor] = {}
    for key, score in scores.items():
        with adapt_for_captum(passes, name, len(passes.probe), score) as captum_score:
            attribution = attr.Saliency(captum_score)
            attribution.gradient_func = compute_image_gradients
            batches = [
                attribution.attribute(images.clone().requires_grad_(), abs=False, additional_forward_args=(indices,))
                for images, indices in captum_score.iterate_batches()
            ]
        gradients[key] = torch.cat(batches)
    return gradients


@dataclass(frozen=True)
class SmoothGrad(PixelMethod):
    r"""SmoothGrad: the saliency map of the mean gradient over noisy copies of the image.

    .. math:: \max_c \Big|\frac{1}{n} \sum_i \partial S(x + \varepsilon_i) / \partial x_c\Big|, \qquad
        \varepsilon_i \sim \mathcal N\big(0, (\text{noise} \cdot (\max x - \min x))^2\big)

    Smilkov et al. 2017, arXiv:1706.03825. The noise is the same for each image and in each snapshot.

    Args:
        samples: The number of noisy copies per image.
        noise: The standard deviation, as a fraction of the image's range.

    Raises:
        ValueError: ``samples`` is less than 1, or ``noise`` is not positive.
    """

    samples: int = 50
    noise: float = 0.15
    base_name: ClassVar[str] = "smoothgrad"

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.noise > 0:
            raise ValueError(f"Expected `samples` of at least 1 and a positive `noise`, but got {self!r}.")

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return non-negative evidence ``(n, *spatial)`` at the pixels."""
        from captum import attr

        gradients = []
        with adapt_for_captum(passes, self.name, len(passes.probe) * self.samples) as score:
            attribution = attr.Saliency(score)
            attribution.gradient_func = compute_image_gradients
            for image, index in score.iterate_batches(1):  # one by one: the noise must not depend on the batch
                reseed(image.device)
                gradients += [
                    attr.NoiseTunnel(attribution).attribute(
                        image,
                        nt_samples=self.samples,
                        nt_samples_batch_size=min(BATCH_SIZE, self.samples),
                        stdevs=self.noise * float(image.max() - image.min()),
                        abs=False,
                        additional_forward_args=(index,),
                    )
                ]
        return {PIXELS: max_over_channels(torch.cat(gradients))}


@dataclass(frozen=True)
class IntegratedGradients(PixelMethod):
    r"""Integrated gradients: the gradient along the line from a baseline to the image, times their difference.

    .. math:: \sum_c (x_c - b) \int_0^1 \partial S(b + \alpha (x - b)) / \partial x_c \, d\alpha

    Sundararajan et al. 2017, arXiv:1703.01365. The method is complete: evidence sums up to the score of the image minus
    the score of the baseline.

    Args:
        steps: The number of steps of the integral, by Gauss-Legendre quadrature.
        baseline: The pixel value, as the model takes it, of an image without information: 0 is the mean color of
            normalized images, and black otherwise.

    Raises:
        ValueError: ``steps`` is less than 1.
    """

    steps: int = 50
    baseline: float = 0.0
    base_name: ClassVar[str] = "integrated_gradients"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Expected `steps` of at least 1, but got {self!r}.")

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return signed evidence ``(n, *spatial)`` at the pixels."""
        from captum import attr

        with adapt_for_captum(passes, self.name, len(passes.probe) * self.steps) as score:
            attribution = attr.IntegratedGradients(score)
            attribution.gradient_func = compute_image_gradients
            batches = [
                attribution.attribute(
                    images,
                    self.baseline,
                    additional_forward_args=(indices,),
                    n_steps=self.steps,
                    internal_batch_size=BATCH_SIZE,
                )
                for images, indices in score.iterate_batches()
            ]
        return {PIXELS: torch.cat(batches).sum(1)}


METHODS.register("saliency")(Saliency())
METHODS.register("integrated_gradients")(IntegratedGradients())
METHODS.register("smoothgrad")(SmoothGrad())
