"""Checks whether a model and its layers can be explained; each error names the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_gradcam.capture.hooks import named_layers
from lightning_gradcam.capture.layer import Layer, LayerRecord
from lightning_gradcam.errors import NotExplainableError, UninitializedModelError

_TORCHSCRIPT = "is a TorchScript module and does not support hooks. Replace it with its eager module."


def check_model(model: nn.Module) -> None:
    """Check that the model is a PyTorch module that supports hooks.

    Raises:
        TypeError: The model is not a module.
        NotExplainableError: The model is a TorchScript module.
        UninitializedModelError: The model has lazy modules that have not run yet.

    >>> check_model("resnet18")
    Traceback (most recent call last):
    TypeError: Expected a torch.nn.Module, but got str. Gradients of layers need PyTorch: ...
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"Expected a torch.nn.Module, but got {type(model).__name__}. Gradients of layers need PyTorch: instead of "
            "an exported model (ONNX, TensorRT, an ExportedProgram), pass the module that was exported."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise NotExplainableError(
            f"{type(model).__name__} is a TorchScript module and does not support hooks. Pass the eager model from "
            "which it was compiled."
        )
    check_initialized(model, [name for name, parameter in model.named_parameters() if is_lazy(parameter)])


def check_initialized(model: nn.Module, missing: Sequence[str]) -> None:
    """Check that no parameter is created in a forward pass.

    Args:
        model: The model.
        missing: Names of the parameters that have no values yet.

    Raises:
        UninitializedModelError: There are such parameters.
    """
    if missing:
        names = ", ".join(repr(name) for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UninitializedModelError(
            f"{type(model).__name__} creates parameters in its first forward pass ({names}), so it has no weights to "
            "explain yet. Run the model once on a batch before."
        )


def check_eager(layers: Sequence[Layer], model: nn.Module) -> None:
    """Check that no layer is a TorchScript module.

    Raises:
        NotExplainableError: A layer is a TorchScript module.
    """
    modules = named_layers(model)
    for layer in layers:
        if isinstance(modules.get(layer.name), torch.jit.ScriptModule):
            raise NotExplainableError(f"Layer {layer.name!r} {_TORCHSCRIPT}")


def check_reach(layers: Sequence[Layer], records: Sequence[LayerRecord]) -> None:
    """Check that the score's gradient, which the method needs, reaches every layer.

    Raises:
        NotExplainableError: It does not reach a layer; the message names the likely reason.
    """
    for layer in layers:
        calls = [r for r in records if layer.name in (r.name, *r.inner) and layer.to_grid == r.to_grid]
        if calls and not any(r.reaches for r in calls):
            reason = (
                "the score depends on other tokens than its patch tokens"
                if calls[-1].tokens
                else "a detach, a no_grad, an inference_mode or a step outside of PyTorch cuts it off, or the score is "
                "computed without it"
            )
            raise NotExplainableError(
                f"No gradient of the score reaches layer {layer.name!r} ({reason}). Choose another with `layers=`: "
                "`recommended_layers(model, images)` lists the layers that it reaches."
            )


def describe_misplaced(layers: Sequence[Layer], records: Sequence[LayerRecord]) -> str:
    """Return a warning about layers whose cells do not follow the image; empty if there are none.

    >>> describe_misplaced([Layer("a")], [LayerRecord("a", "Linear", (2, 49, 8), (7, 7), misplaced=True)])[:50]
    "The map of layer 'a' may not lie where it is drawn"
    """
    misplaced = {name for r in records if r.misplaced for name in (r.name, *r.inner)}
    right = {name for r in records if not r.misplaced for name in (r.name, *r.inner)}
    names = [repr(layer.name) for layer in layers if layer.name in misplaced - right]
    if not names:
        return ""
    subject = f"The map of layer {names[0]}" if len(names) == 1 else f"The maps of layers {', '.join(names)}"
    return (
        f"{subject} may not lie where it is drawn: when patches of the image were changed, other cells than theirs "
        "changed. Pass `Layer(name, to_grid=...)`, which turns the output into (n, C, *grid) in the order of the image."
    )


@contextmanager
def add_model_hints(model: nn.Module) -> Iterator[None]:
    """Add a hint to a `NotExplainableError` raised inside: a part of the model that is known to prevent explanations.

    Raises:
        NotExplainableError: The original error, with the first such part and its remedy.
    """
    try:
        yield
    except NotExplainableError as error:
        hints = ((name, hint) for name, module in model.named_modules() if (hint := _find_hint(module)))
        name, hint = next(hints, ("", ""))
        if not hint or hint in str(error):
            raise
        raise type(error)(f"{error} In this model, {name or 'the outermost module'} {hint}") from error


def _find_hint(module: nn.Module) -> str:
    """Return why a module prevents explanations, with the remedy; empty if it does not."""
    if isinstance(module, torch.jit.ScriptModule):
        return _TORCHSCRIPT
    if ".quantized." in f"{type(module).__module__}.":
        return "is quantized, and quantized operations have no gradient. Explain the floating-point model."
    return ""
