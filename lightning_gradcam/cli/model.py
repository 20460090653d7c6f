"""Creates the model of ``--model``, on a device, with the weights of a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lightning_gradcam.cli.checkpoint import load_weights, read_checkpoint
from lightning_gradcam.cli.errors import UsageError, describe_error
from lightning_gradcam.cli.import_spec import ImportSpec
from lightning_gradcam.cli.instantiate import import_factory, instantiate

_PLAIN_TYPES = (str, int, float, bool, type(None))


def load_model(spec: ImportSpec, ckpt_path: str | None, prefix: str, device: str) -> nn.Module:
    """Create the model and load its weights.

    Args:
        spec: Its class or function; arguments that are not passed are taken from the checkpoint's hyperparameters.
        ckpt_path: A Lightning checkpoint, a state dict, or a safetensors file.
        prefix: Prefix to strip from the keys of the checkpoint.
        device: A device of PyTorch, or ``"auto"``.

    Raises:
        UsageError: The model cannot be created, the checkpoint cannot be read, or they do not match.
    """
    checkpoint = {} if ckpt_path is None else read_checkpoint(ckpt_path)
    torch.manual_seed(0)  # a model without a checkpoint has the same weights in every run
    model = instantiate(spec, "model", _read_hyperparameters(spec, checkpoint))
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected --model {spec.path} to create an nn.Module, but got {type(model).__name__}.")
    if ckpt_path is not None:
        for hook, arguments in (("configure_model", ()), ("on_load_checkpoint", (checkpoint,))):
            if callable(getattr(type(model), hook, None)):  # a LightningModule
                getattr(model, hook)(*arguments)
        load_weights(model, checkpoint, prefix, ckpt_path)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return model.to(torch.device(device)).eval()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {describe_error(error)}") from error


def _read_hyperparameters(spec: ImportSpec, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters saved by Lightning that the model accepts and the user did not pass.

    Raises:
        UsageError: One is not a plain value. Objects are not restored, because that could execute code.
    """
    saved = checkpoint.get("hyper_parameters")
    if not isinstance(saved, Mapping):
        return {}
    # Names with an underscore are LightningCLI's own.
    values = {str(name): value for name, value in saved.items() if not str(name).startswith("_")}
    parameters = inspect.signature(import_factory(spec.path, "model")).parameters
    if checkpoint.get("hparams_name") in parameters and checkpoint["hparams_name"] not in values:
        values = {str(checkpoint["hparams_name"]): values}  # __init__(self, hparams)
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    values = {name: value for name, value in values.items() if accepts_any or name in parameters}
    passed = {*spec.arguments, *(word[2:].split("=")[0].split(".")[0] for word in spec.words)}
    objects = [name for name, value in values.items() if not _is_plain(value)]
    for name in objects:
        if name not in passed:
            raise UsageError(
                f"The checkpoint's hyperparameter {name!r} is not a plain value. Pass it as --model.{name} VALUE."
            )
        del values[name]
    return values


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" not in value and all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN_TYPES)
