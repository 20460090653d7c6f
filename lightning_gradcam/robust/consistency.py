"""Loss of adversarial training that also keeps explanations consistent under attack."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_gradcam.attacks import PGD
from lightning_gradcam.capture.capture import capture
from lightning_gradcam.capture.forward import default_forward
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.explainer.repeated_calls import split_calls, sum_calls
from lightning_gradcam.layers import Layers
from lightning_gradcam.layers.trace_model import TRACED_IMAGES
from lightning_gradcam.methods import METHODS, LayerMethod
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.robust.losses import PGDLoss
from lightning_gradcam.robust.step import (
    TEN_STEPS,
    Step,
    TrainingLoss,
    check_attack,
    check_weight,
    to_float32,
    to_trainable,
)
from lightning_gradcam.targets import TARGETS, freeze_classes, require_logits


@dataclass(frozen=True)
class ConsistencyLoss(TrainingLoss):
    r"""Adversarial training with a penalty on changes of the explanation under attack. Experimental.

    .. math:: \operatorname{CE}(f(x'), y) + \lambda \, \big(1 - \cos(\operatorname{relu} E_y(x),
        \operatorname{relu} E_y(x'))\big)

    with ``x'`` as in `PGDLoss`, and the Grad-CAM evidence ``E`` of the label's class, which is part of the graph: the
    gradient of the penalty is a second derivative. Images with a degenerate clean or attacked map do not count; without
    any other image, the penalty is 0. The two forward passes run eagerly, since compiled code supports neither hooks
    nor second derivatives.

    Args:
        attack: Attack as in `PGDLoss`.
        weight: The factor lambda.
        layers: Layers whose maps are compared, as for `explain`; with several, their mean. ``"auto"`` and rules choose
            in the first step, from a trace of two images.
        pixels: Normalization of the images; None if they are pixels in [0, 1].

    Raises:
        TypeError: The attack is not a `PGD`.
        ValueError: The weight is negative.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    >>> step = ConsistencyLoss(PGD(eps=0.1), weight=2).step(model, torch.rand(2, 1, 8, 8), torch.tensor([0, 2]))
    >>> step.loss.requires_grad, bool(0 < step.similarity <= 1)
    (True, True)
    """

    attack: PGD = TEN_STEPS
    weight: float = 1.0
    layers: Layers = "auto"
    pixels: Normalization | None = None
    _layers_by_model: WeakKeyDictionary[nn.Module, tuple[Layer, ...]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_attack(self.attack)
        check_weight("weight", self.weight)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the arguments only; the copy chooses its layers again."""
        return type(self), (self.attack, self.weight, self.layers, self.pixels)

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """Return the loss with the attacked images, both logits, and the similarity of the maps.

        Raises:
            ValueError: As for `PGDLoss.step`, or a layer's name is unknown.
            NotExplainableError: The model has no spatial output, or no gradient reaches it.
        """
        images, labels = to_trainable(images, labels)
        layers = self.choose_layers(model, images, labels)
        with _enable_second_derivatives():
            attacked = PGDLoss(self.attack, self.pixels).attack_images(model, images, labels)
            clean_evidence, clean_logits = compute_evidence(model, images, labels, layers)
            evidence, logits = compute_evidence(model, attacked, labels, layers)
            similarity = compute_agreement(clean_evidence, evidence)
            loss = F.cross_entropy(to_float32(logits), labels) + self.weight * (1 - similarity)
        return Step(loss, attacked, logits, clean_logits, similarity.detach())

    def choose_layers(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Layer, ...]:
        """Choose the layers whose maps are compared, once for every model; arguments and errors as for `step`."""
        if model not in self._layers_by_model:
            probe = Probe(images.detach(), labels=labels)[:TRACED_IMAGES]
            self._layers_by_model[model] = prepare(model, probe, layers=self.layers, target=TARGETS["label"]).layers
        return self._layers_by_model[model]


def compute_evidence(
    model: nn.Module, images: Tensor, labels: Tensor, layers: Sequence[Layer]
) -> tuple[Mapping[str, Tensor], Tensor]:
    """Compute Grad-CAM evidence ``(N, *s)`` by layer, and the logits, in one pass with graph, in the model's mode."""
    probe = Probe(images, labels=labels)
    calls = split_calls(layers)
    [passes] = capture(model, probe, calls, default_forward(model), [freeze_classes(labels)], differentiable=True)
    gradcam = cast(LayerMethod, METHODS["gradcam"])
    with torch.autocast(images.device.type, enabled=False):
        evidence = {key: gradcam(passes.activations[key], passes.gradients[key]) for key in passes.layers}
    return sum_calls(evidence, layers), require_logits(passes.output)


def compute_agreement(clean: Mapping[str, Tensor], attacked: Mapping[str, Tensor]) -> Tensor:
    """Return the mean cosine of the ReLUed maps over layers and images, without degenerate maps; 1 if all are.

    >>> evidence = torch.tensor([[1.0, 0.0], [-1.0, -1.0]])
    >>> compute_agreement({"a": evidence}, {"a": torch.tensor([[3.0, 4.0], [1.0, 0.0]])})
    tensor(0.6000)
    """
    means = [_compute_mean_cosine(clean[key], attacked[key]) for key in clean]
    return torch.stack(means).mean()


def _compute_mean_cosine(clean: Tensor, attacked: Tensor) -> Tensor:
    """Return the mean cosine of the ReLUed maps over the images without a degenerate map; 1 if there are none."""
    readable = (find_status(clean.detach()) == 0) & (find_status(attacked.detach()) == 0)
    # Replaced before the cosine, not after: the gradient of a norm is NaN at zero.
    a, b = (torch.where(readable[:, None], maps.flatten(1).relu(), 1) for maps in (clean, attacked))
    distance = 1 - F.cosine_similarity(a, b, dim=1)
    return 1 - torch.where(readable, distance, 0).sum() / readable.sum().clamp_min(1)


@contextmanager
def _enable_second_derivatives() -> Iterator[None]:
    """Run compiled modules eagerly inside, and attention with the backend that has a second derivative."""
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
