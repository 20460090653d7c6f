"""Modified backpropagation through ReLUs: guided backpropagation, deconvolution and Guided Grad-CAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor

from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods.base import METHODS, BasePassMethod, LayerMethod
from lightning_gradcam.methods.cam import gradcam
from lightning_gradcam.methods.neuron import Neuron
from lightning_gradcam.methods.pixel_method import max_over_channels
from lightning_gradcam.methods.relu_rules import ReLURules, Rule
from lightning_gradcam.methods.saliency import InputGradientMethod, compute_input_gradients
from lightning_gradcam.utils.interpolation import resize


@dataclass(frozen=True)
class GuidedBackprop(InputGradientMethod):
    """Guided backpropagation: saliency whose ReLUs pass back positive gradients of active units only.

    Springenberg et al. 2014, arXiv:1412.6806. The map shows edges that the network detects. It depends little on the
    class or on the weights of the last layers (Adebayo et al. 2018, arXiv:1810.03292), so it does not prove what a
    model has learned.

    Args:
        neuron: ``(channel, i, j)`` of each explained layer, instead of the target; evidence then has the layer's key.

    Raises:
        TypeError: The neuron is not a sequence of integers.
        ValueError: The neuron has no position, or a negative number.

    >>> GuidedBackprop(neuron=[5, 2, 2])
    GuidedBackprop(neuron=(5, 2, 2))
    """

    base_name: ClassVar[str] = "guided_backprop"

    def _compute_gradients(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        return compute_gradients_by_rule(passes, self.name, "guided", self.neuron)


@dataclass(frozen=True)
class Deconvolution(InputGradientMethod):
    """Deconvolution: saliency whose ReLUs pass back positive gradients only, of active and inactive units.

    Zeiler and Fergus 2013, arXiv:1311.2901, section 2.1. Like `GuidedBackprop`, the map depends more on the image than
    on the class.

    Args:
        neuron: ``(channel, i, j)`` of each explained layer, instead of the target; evidence then has the layer's key.

    Raises:
        TypeError: The neuron is not a sequence of integers.
        ValueError: The neuron has no position, or a negative number.
    """

    base_name: ClassVar[str] = "deconvolution"

    def _compute_gradients(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        return compute_gradients_by_rule(passes, self.name, "deconvolution", self.neuron)


@dataclass(frozen=True)
class GuidedGradCAM(BasePassMethod):
    r"""Guided Grad-CAM: the upsampled positive part of Grad-CAM times guided backpropagation.

    .. math:: \operatorname{up}\big(\operatorname{relu}(\text{Grad-CAM})\big) \cdot \max_c |\text{guided}_c|

    Selvaraju et al. 2017, arXiv:1610.02391, section 3.2. The map is as fine as guided backpropagation and
    class-discriminative like Grad-CAM. Evidence has a layer's key and the image's size.
    """

    requires: ClassVar[str] = "captum"
    name: ClassVar[str] = "guided_gradcam"
    enlarges_maps: ClassVar[bool] = True

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return non-negative evidence ``(n, *spatial)`` per layer."""
        guided = max_over_channels(compute_gradients_by_rule(passes, self.name, "guided")[PIXELS])
        equation = cast(LayerMethod, gradcam)
        maps = {key: equation(a, passes.gradients[key]).relu() for key, a in passes.activations.items()}
        size, centers = passes.probe.size, passes.centers
        return {key: resize(evidence, size, centers=centers.get(key)) * guided for key, evidence in maps.items()}


def compute_gradients_by_rule(
    passes: CapturedPass, name: str, rule: Rule, neuron: Neuron | None = None
) -> Mapping[str, Tensor]:
    """Compute the gradients ``(n, C, *spatial)`` at the pixels with another backward rule for ReLUs.

    Raises:
        NotExplainableError: No ReLU ran.
    """
    with ReLURules(rule) as relu_rules:
        gradients = compute_input_gradients(passes, name, neuron)
    if not relu_rules.calls:
        raise NotExplainableError(
            f"No ReLU ran between the images and the score, so {name!r} would be the plain gradient; other "
            "activations (GELU, SiLU, ...) have no such rule. Use `method='saliency'` or `method='smoothgrad'`."
        )
    return gradients


METHODS.register("guided_backprop")(GuidedBackprop())
METHODS.register("deconvolution")(Deconvolution())
METHODS.register("guided_gradcam")(GuidedGradCAM())
