"""Adversarial training that also pulls the explanations of clean and of attacked images together."""

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
from lightning_gradcam.layers import Layers
from lightning_gradcam.layers.trace_model import TRACED_IMAGES
from lightning_gradcam.methods import METHODS, LayerMethod
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.robust.losses import PGDLoss
from lightning_gradcam.robust.step import TEN_STEPS, Step, check_attack, check_weight, to_float32, to_trainable
from lightning_gradcam.targets import TARGETS, freeze_classes, require_logits


@dataclass(frozen=True)
class ConsistencyLoss:
    r"""Adversarial training with a penalty where an attack moves the explanation. Experimental.

    .. math:: \operatorname{CE}(f(x'), y) + \lambda \, \big(1 - \cos(\operatorname{relu} E_y(x),
        \operatorname{relu} E_y(x'))\big)

    with ``x'`` as of `PGDLoss` and the Grad-CAM evidence ``E`` of the label's class, which is part of the graph: the
    gradient of the penalty is a second derivative. Maps that are degenerate in one of the two are left out; where all
    are, the penalty is 0. Its two passes run eagerly, since compiled code has no hooks and no second derivatives.

    Args:
        attack: As of `PGDLoss`.
        weight: The factor lambda.
        layers: Whose maps are compared, as of `explain`; of several, the mean counts. ``"auto"`` and rules are decided
            in the first step, from a trace of two images.
        pixels: The normalisation of the images; None where they are pixels in [0, 1].

    Raises:
        TypeError: The attack is no `PGD`.
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
    _places: WeakKeyDictionary[nn.Module, tuple[Layer, ...]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_attack(self.attack)
        check_weight("weight", self.weight)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles have the arguments; the layers are found again."""
        return type(self), (self.attack, self.weight, self.layers, self.pixels)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar; see `step`."""
        return self.step(model, images, labels).loss

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> Step:
        """The loss with the attacked images, both logits, and how similar the maps are.

        Args:
            model: Called as ``model(images)``, with logits in what it returns; a LightningModule passes ``self``.
            images: ``(N, C, *spatial)``, as the model takes them.
            labels: ``(N,)`` classes, whose evidence is compared.

        Raises:
            ValueError: Images do not lie in [0, 1] without their normalisation, or a layer's name is unknown.
            NotExplainableError: The model has no spatial output, or no gradient reaches it.
        """
        images, labels = to_trainable(images, labels)
        places = self.locations(model, images, labels)
        with _differentiable():
            plain = PGDLoss(self.attack, self.pixels)
            moved = plain.attacked(model, images, labels)
            clean_maps, clean_logits = compute_evidence(model, images, labels, places)
            maps, logits = compute_evidence(model, moved, labels, places)
            similarity = compute_agreement(clean_maps, maps)
            loss = F.cross_entropy(to_float32(logits), labels) + self.weight * (1 - similarity)
        return Step(loss, moved, logits, clean_logits, similarity.detach())

    def locations(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Layer, ...]:
        """The layers whose maps are compared, decided once for each model; arguments and errors as of `step`."""
        if model not in self._places:
            rows = Probe(images.detach(), labels=labels)[:TRACED_IMAGES]
            self._places[model] = prepare(model, rows, layers=self.layers, target=TARGETS["label"]).layers
        return self._places[model]


def compute_evidence(
    model: nn.Module, images: Tensor, labels: Tensor, layers: Sequence[Layer]
) -> tuple[Mapping[str, Tensor], Tensor]:
    """Grad-CAM evidence ``(N, *s)`` per layer, and the logits, both of one pass in the model's own mode, with graph."""
    probe = Probe(images, labels=labels)
    [passes] = capture(model, probe, layers, default_forward(model), [freeze_classes(labels)], differentiable=True)
    gradcam = cast(LayerMethod, METHODS["gradcam"])
    with torch.autocast(images.device.type, enabled=False):
        evidence = {key: gradcam(passes.activations[key], passes.gradients[key]) for key in passes.layers}
    return evidence, require_logits(passes.output)


def compute_agreement(clean: Mapping[str, Tensor], attacked: Mapping[str, Tensor]) -> Tensor:
    """The mean cosine of the ReLUed maps, over images whose maps are both readable, and over layers; else 1.

    >>> evidence = torch.tensor([[1.0, 0.0], [-1.0, -1.0]])
    >>> compute_agreement({"a": evidence}, {"a": torch.tensor([[3.0, 4.0], [1.0, 0.0]])})
    tensor(0.6000)
    """
    means = [_agreement(clean[key], attacked[key]) for key in clean]
    return torch.stack(means).mean()


def _agreement(clean: Tensor, attacked: Tensor) -> Tensor:
    readable = (find_status(clean.detach()) == 0) & (find_status(attacked.detach()) == 0)
    # Put aside before the cosine: the gradient of a length is NaN at zero.
    a, b = (torch.where(readable[:, None], maps.flatten(1).relu(), 1) for maps in (clean, attacked))
    unlike = 1 - F.cosine_similarity(a, b, dim=1)
    return 1 - torch.where(readable, unlike, 0).sum() / readable.sum().clamp_min(1)


@contextmanager
def _differentiable() -> Iterator[None]:
    """Inside, compiled modules run as they were written, and attention is of the kind that has a second derivative."""
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
