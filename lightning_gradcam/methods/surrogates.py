"""Surrogate models of the score over segments of an image: LIME and Kernel SHAP."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.capture.random_state import reseed
from lightning_gradcam.methods.base import METHODS
from lightning_gradcam.methods.captum_adapter import BATCH_SIZE, CaptumScore, adapt_for_captum
from lightning_gradcam.methods.pixel_method import PixelMethod
from lightning_gradcam.methods.segments import Fill, Segments, check_fill, make_fill, segment_image


class SurrogateMethod(PixelMethod):
    """Base class of the methods that fit a linear surrogate model to images with random segments hidden.

    Subclasses are dataclasses that declare these fields with their defaults.

    Attributes:
        samples: The number of perturbed images, at least 2.
        segments: The segmentation of the image.
        fill: The value that replaces hidden segments.
    """

    samples: int
    segments: Segments
    fill: Fill

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 2:
            raise ValueError(f"Expected `samples` of at least 2, but got {self.samples!r}.")
        if not callable(self.segments) and (not isinstance(self.segments, int) or self.segments < 1):
            raise ValueError(
                f"Expected `segments` to be at least 1 cell, or a callable of images, but got {self.segments!r}."
            )
        check_fill(self.fill)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return signed evidence ``(n, *spatial)`` at the pixels."""
        weights = []
        with adapt_for_captum(passes, self.name, len(passes.probe) * self.samples) as score:
            for image, index in score.iterate_batches(1):  # one by one: samples must not depend on the batch
                reseed(image.device)
                weights += [
                    self._create_attribution(score).attribute(
                        image,
                        make_fill(image, self.fill),
                        additional_forward_args=(index,),
                        feature_mask=segment_image(image, self.segments),
                        n_samples=self.samples,
                        perturbations_per_eval=BATCH_SIZE,
                    )
                ]
        return {PIXELS: torch.cat(weights)[:, 0]}  # all channels of a segment have the same weight

    @abstractmethod
    def _create_attribution(self, score: CaptumScore) -> Any:
        """Create the Captum attribution that fits the surrogate model."""


@dataclass(frozen=True)
class Lime(SurrogateMethod):
    r"""LIME: the weights of a linear model of the score over segments, fitted in the neighborhood of the image.

    .. math:: \min_w \sum_z \pi(z)\, \big(S(z) - w_0 - w \cdot z\big)^2 + \lVert w \rVert^2, \qquad
        \pi(z) = e^{-d(z)^2 / (2 \cdot \text{width}^2)}, \quad d(z) = 1 - \sqrt{\operatorname{mean}(z)}

    Ribeiro et al. 2016, arXiv:1602.04938, with the distance and the ridge of the authors' own code for images. Segments
    are kept or hidden at random, in the same way for each image; each pixel has the weight of its segment.

    Args:
        samples: The number of perturbed images, at least 2.
        segments: The segmentation of the image.
        width: The width of the proximity kernel.
        fill: The value that replaces hidden segments.

    Raises:
        ValueError: A number is out of range, or ``fill`` is neither a number nor ``"mean"``.
    """

    samples: int = 500
    segments: Segments = 7
    width: float = 0.25
    fill: Fill = "mean"
    base_name: ClassVar[str] = "lime"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.width > 0:
            raise ValueError(f"Expected a positive `width`, but got {self.width!r}.")

    def _create_attribution(self, score: CaptumScore) -> Any:
        from captum import attr

        def compute_proximity(_image: Tensor, _perturbed: Tensor, visible: Tensor, **_kwargs: Any) -> Tensor:
            distance = 1 - visible.float().mean().sqrt()
            return torch.exp(-(distance**2) / (2 * self.width**2))

        return attr.Lime(score, LinearModel(ridge=1.0), compute_proximity)


@dataclass(frozen=True)
class KernelShap(SurrogateMethod):
    """Kernel SHAP: Shapley values of segments, the mean contribution to the score over all orders of appearance.

    Lundberg and Lee 2017, arXiv:1705.07874: the weights of a linear model fitted to random coalitions of segments,
    drawn by the Shapley kernel, the same for each image. The values of the segments sum up to the score minus that of
    the image with all segments hidden; each pixel has the value of its segment.

    Args:
        samples: The number of perturbed images, at least 2.
        segments: The segmentation of the image.
        fill: The value that replaces hidden segments.

    Raises:
        ValueError: A number is out of range, or ``fill`` is neither a number nor ``"mean"``.
    """

    samples: int = 500
    segments: Segments = 7
    fill: Fill = "mean"
    base_name: ClassVar[str] = "kernel_shap"

    def _create_attribution(self, score: CaptumScore) -> Any:
        from captum import attr

        attribution = attr.KernelShap(score)
        attribution.interpretable_model = LinearModel()  # Captum's default needs scikit-learn
        return attribution


class LinearModel:
    """Weighted least squares with an intercept, in float64: the interpretable model that Captum fits.

    Args:
        ridge: The factor of the squared weights in the loss; the intercept is not penalized.
    """

    def __init__(self, ridge: float = 0.0) -> None:
        self.ridge = ridge
        self._weights = torch.zeros(1)

    def fit(self, batches: Any, **_options: Any) -> None:
        """Fit the model to one batch of inputs ``(n, m)``, outputs ``(n,)`` and sample weights ``(n,)``."""
        [(inputs, outputs, weights)] = [[tensor.double().cpu() for tensor in batch] for batch in batches]
        root = weights.sqrt()[:, None]
        design = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], 1) * root
        penalty = math.sqrt(self.ridge) * torch.eye(design.shape[1], dtype=torch.float64)[:-1]
        response = torch.cat([outputs[:, None] * root, penalty.new_zeros(len(penalty), 1)])
        self._weights = torch.linalg.lstsq(torch.cat([design, penalty]), response, driver="gelsd").solution[:-1, 0]

    def representation(self) -> Tensor:
        """Return the weights ``(m,)``, without the intercept; Captum expects this name."""
        return self._weights


METHODS.register("lime")(Lime())
METHODS.register("kernel_shap")(KernelShap())
