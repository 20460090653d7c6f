"""What stands in the way of an explanation, said with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from lightning_gradcam.capture.hooks import named_layers
from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.errors import NotExplainableError


def check_model(model: nn.Module) -> None:
    """See whether layers of it can be looked at.

    Raises:
        TypeError: It is no module.
        NotExplainableError: It is TorchScript as a whole.

    >>> check_model("resnet18")
    Traceback (most recent call last):
    TypeError: Expected a torch.nn.Module, but got str. Gradients of layers are PyTorch's: ...
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"Expected a torch.nn.Module, but got {type(model).__name__}. Gradients of layers are PyTorch's: of an "
            "exported model (ONNX, TensorRT, an ExportedProgram), pass the module that it was made from."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise NotExplainableError(
            f"{type(model).__name__} is a TorchScript module, whose layers take no hooks. Pass the eager model that it "
            "was made from."
        )


def check_eager(layers: Sequence[Layer], model: nn.Module) -> None:
    """Raise where a layer is TorchScript.

    Raises:
        NotExplainableError: With its name.
    """
    modules = named_layers(model)
    for layer in layers:
        if isinstance(modules.get(layer.name), torch.jit.ScriptModule):
            raise NotExplainableError(f"Layer {layer.name!r} cannot be looked at.")


def check_reach(layers: Sequence[Layer], shapes: Sequence[LayerRecord]) -> None:
    """Raise where the score's gradient, which the method needs, does not reach a layer.

    Raises:
        NotExplainableError: With the reason.
    """
    for layer in layers:
        at = [s for s in shapes if layer.name in (s.name, *s.inner) and layer.to_grid == s.to_grid]
        if at and not any(s.reaches for s in at):
            why = (
                "its patch tokens: behind it the score reads other tokens only"
                if at[-1].tokens
                else "a detach, a no_grad, an inference_mode or a step outside of PyTorch cuts it off, or the score is "
                "computed without it"
            )
            raise NotExplainableError(
                f"No gradient of the score reaches layer {layer.name!r} ({why}). Choose another with `layers=`: "
                "`recommended_layers(model, images)` lists the ones that it reaches."
            )


@contextmanager
def add_model_hints(model: nn.Module) -> Iterator[None]:
    """Where the model turns out not to be explainable inside, add which of its parts are known to stand in the way."""
    try:
        yield
    except NotExplainableError as error:
        parts = [(name, _hindrance(module)) for name, module in model.named_modules()]
        hindering = [(name, why) for name, why in parts if why]
        if not hindering:
            raise
        name, why = hindering[0]
        raise type(error)(f"{error} In this model, {name or 'all of it'} is {why}") from error


def _hindrance(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript, whose layers take no hooks: put the eager module in its place."
    if ".quantized." in f"{type(module).__module__}.":
        return "quantised, and quantised operations have no gradient: explain the floating-point model."
    return ""
