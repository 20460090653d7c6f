"""The graph of a pass from the earliest layer to the score, and nothing before it."""

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
    keep: bool = True,
    differentiable: bool = False,
) -> list[CapturedPass]:
    """Run the model once and keep what a gradient at ``layers`` needs: the graph from the earliest of them on.

    Under `torch.no_grad`, the pass runs without grad up to there, so that nothing of the body is saved for backward. A
    loss made of the activations and gradients of a ``differentiable`` one reaches all weights that want a gradient.

    Returns:
        One `CapturedPass` per target, all of the same pass, to be read in this order. Unless told to ``keep`` it, the
        last one's gradients free the graph.

    Raises:
        NotExplainableError: A layer did not run.
    """
    output, tensors, cut = _run_to_graph(model, probe, layers, forward)
    with torch.enable_grad():
        carries_grad = all(target(output, probe).requires_grad for target in targets)
    if layers and (cut or not carries_grad):
        # The model has a no_grad block of its own around a layer, and grad was off again after it.
        with torch.enable_grad():
            output, tensors, _ = _run_to_graph(model, probe, layers, forward)
    missing = [layer.name for layer in layers if layer.key not in tensors]
    if missing:
        raise NotExplainableError(
            f"Layer {missing[0]!r} returned no floating-point tensor in this pass: it did not run, or its hook did not "
            "fire. Choose another with `layers=`."
        )
    by_key = {layer.key: layer for layer in layers}
    run = _again(model, forward, probe.images.device.type)
    whole = CapturedPass(
        model,
        probe,
        targets[0],
        output,
        tensors,
        by_key,
        run,
        lambda layer, one: Restart(model, layer, run, one),
        lambda rows, target: capture_attention(model, rows, run, target),
        differentiable=differentiable,
    )
    shared = [True] * (len(targets) - 1) + [keep]
    return [replace(whole, target=target, shared=each) for target, each in zip(targets, shared, strict=True)]


def _again(model: nn.Module, forward: Forward, device: str) -> Callable[[Probe], Any]:
    """The model's forward pass under the autocast of now: methods run without it, and other scores must be as exact."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def run(probe: Probe) -> Any:
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return forward(model, probe)

    return run


def _run_to_graph(
    model: nn.Module, probe: Probe, layers: Sequence[Layer], forward: Forward
) -> tuple[Any, dict[str, Tensor], bool]:
    """The output, the tensors, and whether grad was off again between two of them."""
    tensors: dict[str, Tensor] = {}
    cut = False
    calls: Counter[str] = Counter()
    modules = [(layer, find_layer(layer.name, model)) for layer in layers]
    gone = [layer.name for layer, module in modules if module is None]
    if gone:
        raise NotExplainableError(
            f"Layer {gone[0]!r} is no longer in the model, whose structure has changed. Name one that stays: `layers=`."
        )

    def tap(layer: Layer) -> Hook:
        def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
            nonlocal cut
            call = calls[layer.key]
            calls[layer.key] += 1
            tensor = next(list_float_tensors(output), None)
            if tensor is None or layer.call not in (-1, call):
                return None
            cut |= bool(tensors) and not torch.is_grad_enabled()
            # A clone goes on, so that an in-place operation behind the layer does not change what was captured.
            tensors[layer.key], handed = with_grad(tensor)
            return replace_tensor(output, tensor, handed)

        return leave

    before = torch.is_grad_enabled()
    every = named_layers(model) if before else {}
    taking = [m.register_forward_pre_hook for name, m in every.items() if is_traceable(name, m)]
    tapping = [(module.register_forward_hook, tap(layer)) for layer, module in modules if module is not None]
    with register_hooks([*((register, replace_inference_arguments) for register in taking), *tapping]):  # type: ignore[list-item]  # as above
        try:
            output = forward(model, probe)
        finally:
            torch.set_grad_enabled(before)
    return output, {layer.key: tensors[layer.key] for layer in layers if layer.key in tensors}, cut
