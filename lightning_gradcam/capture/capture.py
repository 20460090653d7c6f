"""The forward pass whose graph begins at the earliest layer and ends at the score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.attention import capture_attention
from lightning_gradcam.capture.hooks import Hook, find_layer, is_traceable, named_layers, register_hooks
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.outputs import list_float_tensors, replace_inference_arguments, replace_tensor, with_grad
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.capture.restart import Restart
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target


def capture(
    model: nn.Module,
    probe: Probe,
    layers: Sequence[Layer],
    forward: Forward,
    targets: Sequence[Target],
    retain_graph: bool = True,
    differentiable: bool = False,
) -> list[CapturedPass]:
    """Run the model once and keep what a gradient at ``layers`` needs: the graph that starts at the earliest of them.

    Under `torch.no_grad`, the pass runs without grad up to there, so that nothing before it is saved for backward.

    Args:
        model: Isolated, see `isolation.isolated`.
        probe: The images.
        layers: The layers to capture.
        forward: How the model is called.
        targets: The scores to explain.
        retain_graph: Whether the graph outlives the last target's gradients.
        differentiable: Whether activations and gradients are part of the graph. A loss computed from them then reaches
            all weights that require a gradient.

    Returns:
        One `CapturedPass` per target, all of the same forward pass. Read their gradients in this order.

    Raises:
        NotExplainableError: A layer did not run.
    """
    output, tensors, is_cut = _run_to_graph(model, probe, layers, forward)
    with torch.enable_grad():
        carries_grad = all(target(output, probe).requires_grad for target in targets)
    if layers and (is_cut or not carries_grad):
        # The model has a no_grad block of its own around a layer, and grad was off again after it.
        with torch.enable_grad():
            output, tensors, _ = _run_to_graph(model, probe, layers, forward)
    missing = [layer.name for layer in layers if layer.key not in tensors]
    if missing:
        raise NotExplainableError(
            f"Layer {missing[0]!r} returned no floating-point tensor in this forward pass: it did not run, or its hook "
            "did not fire. Choose another with `layers=`."
        )
    run = _bind_forward(model, forward, probe.images.device.type)
    last = CapturedPass(
        model,
        probe,
        targets[-1],
        output,
        tensors,
        {layer.key: layer for layer in layers},
        run,
        lambda layer, image: Restart(model, layer, run, image),
        lambda images, target: capture_attention(model, images, run, target),
        retain_graph=retain_graph,
        differentiable=differentiable,
    )
    return [*(replace(last, target=target, retain_graph=True) for target in targets[:-1]), last]


def _bind_forward(model: nn.Module, forward: Forward, device: str) -> Callable[[Probe], Any]:
    """Return the model's forward pass under the current autocast: methods run without it, but scores must match."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def run(probe: Probe) -> Any:
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return forward(model, probe)

    return run


def _run_to_graph(
    model: nn.Module, probe: Probe, layers: Sequence[Layer], forward: Forward
) -> tuple[Any, dict[str, Tensor], bool]:
    """Return the output, the tensors by layer key, and whether grad was off again between two of them."""
    tensors: dict[str, Tensor] = {}
    is_cut = False
    calls: Counter[str] = Counter()
    modules = [(layer, find_layer(layer.name, model)) for layer in layers]
    missing = [layer.name for layer, module in modules if module is None]
    if missing:
        raise NotExplainableError(
            f"Layer {missing[0]!r} is no longer in the model, whose structure has changed. Choose a layer that does "
            "not change with `layers=`."
        )

    def create_hook(layer: Layer) -> Hook:
        def capture_output(_module: nn.Module, _args: Any, output: Any) -> Any:
            nonlocal is_cut
            call = calls[layer.key]
            calls[layer.key] += 1
            tensor = next(list_float_tensors(output), None)
            if tensor is None or layer.call not in (-1, call):
                return None
            is_cut |= bool(tensors) and not torch.is_grad_enabled()
            # The model continues with a clone, so that an in-place operation does not change the captured tensor. In a
            # graph, the captured tensor is a clone as well: what the module itself does with its output later, such
            # as a spiking neuron with its potential, does not count, no matter which other layers are captured.
            tensors[layer.key], clone = with_grad(tensor.clone() if tensor.requires_grad else tensor)
            return replace_tensor(output, tensor, clone)

        return capture_output

    is_grad_enabled = torch.is_grad_enabled()
    traced = named_layers(model) if is_grad_enabled else {}
    pre_hooks = [
        (module.register_forward_pre_hook, replace_inference_arguments)
        for name, module in traced.items()
        if is_traceable(name, module)
    ]
    hooks = [(module.register_forward_hook, create_hook(layer)) for layer, module in modules if module is not None]
    with register_hooks([*pre_hooks, *hooks]):  # type: ignore[list-item]  # pre-hooks have no output argument
        try:
            output = forward(model, probe)
        finally:
            torch.set_grad_enabled(is_grad_enabled)
    return output, {layer.key: tensors[layer.key] for layer in layers if layer.key in tensors}, is_cut
