"""Linear models of what segments of an image do to its score: LIME and Kernel SHAP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_gradcam.capture.isolation import reseed
from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.methods.base import METHODS
from lightning_gradcam.methods.captum_adapter import AT_ONCE, adapt_for_captum, describe_method
from lightning_gradcam.methods.segments import Fill, Segments, check_fill, make_fill, segment_image


@dataclass(frozen=True)
class Lime:
    r"""The weights of a linear model that says which segments raise the score, fitted near the image.

    .. math:: \min_w \sum_z \pi(z)\, \big(S(z) - w_0 - w \cdot z\big)^2 + \lVert w \rVert^2, \qquad
        \pi(z) = e^{-d(z)^2 / (2 \cdot \text{width}^2)}, \quad d(z) = 1 - \sqrt{\operatorname{mean}(z)}

    Ribeiro et al. 2016, arXiv:1602.04938, with the distance and the ridge of the authors' own code for images. Segments
    are kept or hidden at random, the same way for each image; each pixel has the weight of its segment.

    Args:
        samples: How many images with parts hidden.
        segments: How the image is cut.
        width: Of the kernel: how near is near.
        fill: What is seen in the place of a segment.

    Raises:
        ValueError: A number is not over 0, or ``fill`` is of no known kind.
    """

    samples: int = 500
    segments: Segments = 7
    width: float = 0.25
    fill: Fill = "mean"
    extra: ClassVar[str] = "captum"
    place: ClassVar[str] = PIXELS

    def __post_init__(self) -> None:
        _check_surrogate(self.samples, self.segments, self.fill)
        if not self.width > 0:
            raise ValueError(f"Expected `width` over 0, but got {self.width!r}.")

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return describe_method("lime", self)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Signed evidence ``(n, *spatial)`` at the pixels."""
        from captum import attr

        def near(_image: Tensor, _changed: Tensor, kept: Tensor, **_about: Any) -> Tensor:
            distance = 1 - kept.float().mean().sqrt()
            return torch.exp(-(distance**2) / (2 * self.width**2))

        return _fitted(passes, self, lambda score: attr.Lime(score, LinearModel(ridge=1.0), near))


@dataclass(frozen=True)
class KernelShap:
    """Shapley values of segments: what each adds to the score, in the mean over all orders in which they appear.

    Lundberg and Lee 2017, arXiv:1705.07874: a linear model fitted to random sets of segments, which are drawn by
    Shapley's kernel, the same ones for each image. The sum over segments is the score less that of the hidden image;
    each pixel has the value of its segment.

    Args:
        samples: How many images with parts hidden.
        segments: How the image is cut.
        fill: What is seen in the place of a segment.

    Raises:
        ValueError: A number is not over 0, or ``fill`` is of no known kind.
    """

    samples: int = 500
    segments: Segments = 7
    fill: Fill = "mean"
    extra: ClassVar[str] = "captum"
    place: ClassVar[str] = PIXELS

    def __post_init__(self) -> None:
        _check_surrogate(self.samples, self.segments, self.fill)

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return describe_method("kernel_shap", self)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Signed evidence ``(n, *spatial)`` at the pixels."""
        from captum import attr

        def engine(score: Any) -> Any:
            made = attr.KernelShap(score)
            made.interpretable_model = LinearModel()  # captum's own needs scikit-learn
            return made

        return _fitted(passes, self, engine)


class LinearModel:
    """The linear model that captum fits to samples: weighted least squares, with an intercept, in float64.

    Args:
        ridge: Factor of the squared weights that is added to the loss; the intercept is free.
    """

    def __init__(self, ridge: float = 0.0) -> None:
        self.ridge = ridge
        self._weights = torch.zeros(1)

    def fit(self, batches: Any, **_options: Any) -> None:
        """Fit to one batch of inputs ``(n, m)``, outputs ``(n,)`` and weights ``(n,)``."""
        [(inputs, outputs, weights)] = [[part.double().cpu() for part in batch] for batch in batches]
        root = weights.sqrt()[:, None]
        table = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], 1) * root
        free = math.sqrt(self.ridge) * torch.eye(table.shape[1], dtype=torch.float64)[:-1]
        wanted = torch.cat([outputs[:, None] * root, free.new_zeros(len(free), 1)])
        self._weights = torch.linalg.lstsq(torch.cat([table, free]), wanted, driver="gelsd").solution[:-1, 0]

    def representation(self) -> Tensor:
        """The weights ``(m,)``, without the intercept."""
        return self._weights


def _fitted(passes: CapturedPass, method: Lime | KernelShap, engine: Callable[[Any], Any]) -> Mapping[str, Tensor]:
    found = []
    with adapt_for_captum(passes, method.name, len(passes.probe) * method.samples) as score:
        for image, row in score.portions(1):  # one by one, so that no image's samples hang on its neighbours
            reseed(image.device)
            found += [
                engine(score).attribute(
                    image,
                    make_fill(image, method.fill),
                    additional_forward_args=(row,),
                    feature_mask=segment_image(image, method.segments),
                    n_samples=method.samples,
                    perturbations_per_eval=AT_ONCE,
                )
            ]
    return {PIXELS: torch.cat(found)[:, 0]}  # the same in all channels


def _check_surrogate(samples: object, segments: object, fill: object) -> None:
    if not isinstance(samples, int) or samples < 2:
        raise ValueError(f"Expected `samples` of at least 2, but got {samples!r}.")
    if not callable(segments) and (not isinstance(segments, int) or segments < 1):
        raise ValueError(f"Expected `segments` to be at least 1 cell, or a callable of images, but got {segments!r}.")
    check_fill(fill)


METHODS.register("lime")(Lime())
METHODS.register("kernel_shap")(KernelShap())
