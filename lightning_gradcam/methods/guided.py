"""Gradients at the pixels that ReLUs let back only where they are positive: sharp, but hardly of the class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor

from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods.base import METHODS, LayerMethod
from lightning_gradcam.methods.cam import gradcam
from lightning_gradcam.methods.captum_adapter import max_over_channels
from lightning_gradcam.methods.neuron import Neuron, name_method, to_neuron
from lightning_gradcam.methods.relu_rules import ReLURules, Rule
from lightning_gradcam.methods.saliency import compute_input_gradients
from lightning_gradcam.utils.interpolation import resize


@dataclass(frozen=True)
class GuidedBackprop:
    """The gradient at the pixels, where ReLUs let back what is positive and came through them; the largest of channels.

    Springenberg et al. 2014, arXiv:1412.6806. It draws edges that the network sees, and changes little with the class
    or with the weights of the last layers (Adebayo et al. 2018, arXiv:1810.03292): no proof of what a model has learnt.

    Args:
        neuron: ``(channel, i, j)`` of each layer explained, instead of the target; evidence has the layer's key then.

    Raises:
        TypeError: The neuron is no sequence of integers.
        ValueError: It has no place, or one under 0.

    >>> GuidedBackprop(neuron=[5, 2, 2])
    GuidedBackprop(neuron=(5, 2, 2))
    """

    neuron: Neuron | None = None
    extra: ClassVar[str] = "captum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "neuron", to_neuron(self.neuron))

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return name_method("guided_backprop", self.neuron)

    @property
    def place(self) -> str | None:
        """Of the class at the pixels; a neuron has a layer."""
        return PIXELS if self.neuron is None else None

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *spatial)`` at the pixels, never negative."""
        return _rectified(passes, self.name, "guided", self.neuron)


@dataclass(frozen=True)
class Deconvolution:
    """The gradient at the pixels, where ReLUs let back what is positive; the largest of channels.

    Zeiler and Fergus 2013, arXiv:1311.2901, section 2.1. As `GuidedBackprop`, it shows the image more than the class.

    Args:
        neuron: As for `GuidedBackprop`.

    Raises:
        TypeError: The neuron is no sequence of integers.
        ValueError: It has no place, or one under 0.
    """

    neuron: Neuron | None = None
    extra: ClassVar[str] = "captum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "neuron", to_neuron(self.neuron))

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return name_method("deconvolution", self.neuron)

    @property
    def place(self) -> str | None:
        """Of the class at the pixels; a neuron has a layer."""
        return PIXELS if self.neuron is None else None

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *spatial)`` at the pixels, never negative."""
        return _rectified(passes, self.name, "deconvolution", self.neuron)


@dataclass(frozen=True)
class GuidedGradCAM:
    r"""Grad-CAM's positive part, enlarged to the image, times guided backpropagation: sharp, and of the class.

    .. math:: \operatorname{up}\big(\operatorname{relu}(\text{Grad-CAM})\big) \cdot \max_c |\text{guided}_c|

    Selvaraju et al. 2017, arXiv:1610.02391, section 3.2. Evidence is that of a layer, at the size of the image.
    """

    extra: ClassVar[str] = "captum"
    name: ClassVar[str] = "guided_gradcam"

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *spatial)`` per layer, never negative."""
        fine = _rectified(passes, self.name, "guided", None)[PIXELS]
        equation = cast(LayerMethod, gradcam)
        coarse = {key: equation(a, passes.gradients[key]).relu() for key, a in passes.activations.items()}
        return {key: resize(evidence, passes.probe.size) * fine for key, evidence in coarse.items()}


def _rectified(passes: CapturedPass, name: str, rule: Rule, neuron: Neuron | None) -> Mapping[str, Tensor]:
    with ReLURules(rule) as met:
        found = compute_input_gradients(passes, name, neuron)
    if not met.calls:
        raise NotExplainableError(
            f"No ReLU ran on the way from the images to the score, so that {name!r} would be the plain gradient: "
            "activations of other kinds (GELU, SiLU, ...) have no such rule. Use `method='saliency'` or 'smoothgrad'."
        )
    return {key: max_over_channels(gradients) for key, gradients in found.items()}


METHODS.register("guided_backprop")(GuidedBackprop())
METHODS.register("deconvolution")(Deconvolution())
METHODS.register("guided_gradcam")(GuidedGradCAM())
