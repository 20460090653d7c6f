"""From images to an explanation, readable top to bottom."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_gradcam.capture import capture, trace
from lightning_gradcam.explanation import Explanation, ForwardError, NotExplainableError, flaws
from lightning_gradcam.isolation import isolated
from lightning_gradcam.layers import Layers, choose_layers
from lightning_gradcam.methods import LayerMethod, PassMethod, apply, coerce_methods, uses_gradients
from lightning_gradcam.passes import Passes
from lightning_gradcam.probe import Forward, Probe, Target
from lightning_gradcam.targets import ClassScore, check_classes, coerce_target, find_logits, logits_of
from lightning_gradcam.trace import Layer, LayerShape

Methods: TypeAlias = str | LayerMethod | PassMethod | Sequence[str | LayerMethod | PassMethod]
Targets: TypeAlias = str | int | Sequence[int] | Tensor | Target

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "_ALLOC_FAILED")

TRACED_ROWS = 2
"""A trace looks at shapes and reach only; two images, since models that squeeze a batch of one exist."""


def explain(
    model: nn.Module,
    images: Tensor | Probe,
    *,
    layers: Layers = "auto",
    method: Methods = "gradcam",
    target: Targets = "predicted",
    forward: Forward | None = None,
) -> Explanation:
    """Show where in the images the evidence for a score lies.

    The model is left as it was found (see `isolation.isolated`); the pass costs about one forward pass, and only what
    lies behind the earliest layer is kept for backward.

    Args:
        model: Any module; it is evaluated, also where it is in train mode.
        images: ``(N, C, *spatial)`` float, as the model takes them, on its device; or a `Probe` of them.
        layers: ``"auto"`` (one layer), ``"stages"`` (the last layer of every resolution), a layer's name, a module, a
            `Layer`, a list of these, or a rule over the traced shapes.
        method: A method's name, a callable of (activations, gradients), one of (passes), or a list of these.
        target: ``"predicted"``, ``"label"``, a class for all images, one for each, or a callable of
            ``(output, probe)`` that returns scores ``(n,)``, or ``(n, k)`` to be explained together.
        forward: A callable of ``(model, probe)`` for models that take more, or other, than the images.

    Returns:
        An `Explanation` on the images' device, float32 whatever the model's precision.

    Raises:
        TypeError: An argument is of no known kind.
        ValueError: A name is unknown, or a class is not one of the model's.
        NotExplainableError: The model has no spatial output, or no gradient reaches it.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        >>> explanation = explain(model, torch.rand(2, 1, 8, 8), target=1)
        >>> explanation.maps["1"].shape, explanation.heatmaps()["1"].shape, explanation.layers["1"].reason
        (torch.Size([2, 6, 6]), torch.Size([2, 8, 8]), 'the last feature map on the way to the score')
    """
    probe = as_probe(images)
    score = coerce_target(target)
    plan = prepare(model, probe, layers=layers, method=method, target=score, forward=forward)
    return plan(model, probe, [score])[0]


def as_probe(images: Tensor | Probe) -> Probe:
    """The images as a probe of ordinary tensors, see `Probe.ordinary`."""
    if not isinstance(images, (Tensor, Probe)):
        raise TypeError(
            f"Expected a tensor of shape (N, C, *spatial) or a Probe, but got {type(images).__name__}. "
            "For an array, `torch.from_numpy` makes one; for a DataLoader, take one batch's images."
        )
    return (images if isinstance(images, Probe) else Probe(images)).ordinary()


@dataclass(frozen=True)
class Plan:
    """What was decided before the first pass, once: where, how, and how the model is called.

    Args:
        layers: Where evidence is read.
        methods: How it is computed, by name.
        forward: How the model is called.
        shapes: The trace that the layers were chosen from.
        classes: How many classes the model tells apart; None where it returns no logits.
    """

    layers: tuple[Layer, ...]
    methods: Mapping[str, LayerMethod | PassMethod]
    forward: Forward
    shapes: tuple[LayerShape, ...]
    classes: int | None

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """Explain one forward pass over the probe, once for each target."""
        with isolated(model):
            passes = capture(model, probe, self.layers, self._run, targets)
            # The caller's autocast is for the model: the equations are float32.
            with torch.autocast(probe.images.device.type, enabled=False):
                return [self._explanation(each) for each in passes]

    def _run(self, model: nn.Module, probe: Probe) -> Any:
        output = self.forward(model, probe)
        logits = find_logits(output)
        if self.classes is not None and (logits is None or logits.shape[1] != self.classes):
            # Found here, since a class that does not exist ends the process on an accelerator.
            raise NotExplainableError(
                f"The model told {self.classes} classes apart when it was looked at first, and now puts out "
                f"{'no logits' if logits is None else logits.shape[1]}. Start another run for another model."
            )
        return output

    def _explanation(self, passes: Passes) -> Explanation:
        evidence: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        places: dict[str, Layer] = {}
        for name, method in self.methods.items():
            for layer, tensor in apply(method, passes).items():
                key = layer if len(self.methods) == 1 else f"{layer}/{name}"
                gradients = passes.gradients[layer] if uses_gradients(method) else None
                evidence[key], found[key], places[key] = tensor, flaws(tensor, gradients), passes.layers[layer]
        logits = find_logits(passes.output)
        target = passes.target
        return Explanation(
            evidence=evidence,
            logits=passes.probe.images.new_empty(len(passes.probe), 0) if logits is None else logits.detach().float(),
            classes=target.classes(passes.output, passes.probe) if isinstance(target, ClassScore) else None,
            size=passes.probe.size,
            layers=places,
            flaws=found,
        )


def prepare(
    model: nn.Module,
    probe: Probe,
    *,
    layers: Layers = "auto",
    method: Methods = "gradcam",
    target: Target,
    forward: Forward | None = None,
) -> Plan:
    """Trace the model once on the first images and decide; arguments and errors as for `explain`."""
    methods = coerce_methods(method)
    call = Called(forward or default_forward(model))
    rows = probe[:TRACED_ROWS]
    # Any class shows what the gradient reaches, and a label may be out of range: that is checked below.
    score = logits_of if isinstance(target, ClassScore) else lambda output: target(output, rows)
    with isolated(model):
        shapes, output = trace(model, rows, call, score)
    logits = find_logits(output)
    if isinstance(target, ClassScore) and logits is not None:
        check_classes(target.choose(logits, probe), logits.shape[1])
    count = None if logits is None else logits.shape[1]
    return Plan(tuple(choose_layers(layers, shapes, model)), methods, call, shapes, count)


@dataclass(frozen=True)
class Called:
    """A forward pass whose errors say with what the model was called."""

    forward: Forward

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """What the model returns.

        Raises:
            ForwardError: The model raised; but memory that runs out stays what it is.
        """
        try:
            return self.forward(model, probe)
        except NotExplainableError:
            raise
        except Exception as error:
            if memory_ran_out(error):
                raise
            raise ForwardError(
                f"The forward pass of {type(model).__name__} failed on images of shape {tuple(probe.images.shape)} "
                f"({probe.images.dtype}): {type(error).__name__}: {error}. If it needs other input, pass `forward=`, a "
                "callable of (model, probe)."
            ) from error


def memory_ran_out(error: BaseException) -> bool:
    """Whether that is what an error says; only CUDA's allocator has an error of its own for it.

    >>> memory_ran_out(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    """
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    return said or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def default_forward(model: nn.Module) -> Forward:
    """``model(probe.images)``, for models that need no more.

    Raises:
        NotExplainableError: The model's ``forward`` has other required arguments.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or not parameters:
        raise NotExplainableError(
            f"{type(model).__name__}.forward needs ({', '.join(needed)}), but would be called with the images only. "
            "Pass `forward=`, a callable of (model, probe): `lambda model, probe: model(probe.images, ...)`; what else "
            "a batch holds is in `probe.extras`."
        )
    return _images_only


def _images_only(model: nn.Module, probe: Probe) -> Any:
    return model(probe.images)
