"""A model with the weights of a checkpoint. Nothing in a file is run, and no name in it is looked up."""

from __future__ import annotations

import inspect
import os
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_gradcam.cli.errors import WrongCallError, describe_error
from lightning_gradcam.cli.instantiate import import_factory, instantiate
from lightning_gradcam.cli.parser import ImportSpec

_HOLDERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PLAIN = (str, int, float, bool, type(None))


def load_model(named: ImportSpec, ckpt_path: str | None, prefix: str, device: str) -> nn.Module:
    """Make the model and load its weights, on a device.

    Args:
        named: Its class or function; what is not given is taken from the checkpoint's hyper-parameters.
        ckpt_path: Of Lightning, a state_dict, or safetensors.
        prefix: Taken off the names in the checkpoint.
        device: Of PyTorch, or ``"auto"``.

    Raises:
        WrongCallError: The model cannot be made, the checkpoint not read, or they do not fit.
    """
    checkpoint = {} if ckpt_path is None else read_checkpoint(ckpt_path)
    torch.manual_seed(0)  # a model without a checkpoint is the same one every time
    model = instantiate(named, "model", _defaults(named, checkpoint))
    if not isinstance(model, nn.Module):
        raise WrongCallError(f"expected --model {named.path} to make an nn.Module, but it made {type(model).__name__}")
    if ckpt_path is not None:
        for hook, arguments in (("configure_model", ()), ("on_load_checkpoint", (checkpoint,))):
            if callable(getattr(type(model), hook, None)):  # of Lightning
                getattr(model, hook)(*arguments)
        _load(model, _weights(checkpoint, ckpt_path), prefix, ckpt_path)
    try:
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        return model.to(where).eval()
    except (RuntimeError, AssertionError) as error:
        raise WrongCallError(f"--device {device}: {describe_error(error)}") from error


def read_checkpoint(path: str) -> Mapping[str, Any]:
    """What a checkpoint holds, tensors and plain values only.

    Raises:
        WrongCallError: It is no checkpoint, or holds more.
    """
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are refused a moment later
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WrongCallError(f"--ckpt_path {path!r} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WrongCallError(
            f"--ckpt_path {path!r} is damaged, or holds more than tensors and plain values (objects among the "
            "hyper-parameters, say); such a file can run code, so it is not loaded. Save the weights alone: "
            "torch.save(model.state_dict(), path)"
        ) from error
    except (RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise WrongCallError(f"--ckpt_path {path!r} is no checkpoint: {describe_error(error)}") from error
    if not isinstance(found, Mapping):
        raise WrongCallError(f"--ckpt_path {path!r} holds a {type(found).__name__}, and no weights by name")
    return found


def _weights(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
    for name in _HOLDERS:
        if isinstance(checkpoint.get(name), Mapping):
            return dict(checkpoint[name])
    if checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()):
        return dict(checkpoint)
    held = ", ".join(map(str, list(checkpoint)[:8])) or "nothing"
    raise WrongCallError(f"--ckpt_path {path!r} holds no weights: expected a state_dict, but found {held}")


def _defaults(named: ImportSpec, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that Lightning saved, for what the model takes and the user did not give."""
    saved = checkpoint.get("hyper_parameters")
    if not isinstance(saved, Mapping):
        return {}
    given = {str(name): value for name, value in saved.items() if not str(name).startswith("_")}  # LightningCLI's own
    parameters = inspect.signature(import_factory(named.path, "model")).parameters
    if checkpoint.get("hparams_name") in parameters and checkpoint["hparams_name"] not in given:
        given = {str(checkpoint["hparams_name"]): given}  # __init__(self, hparams)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {name: value for name, value in given.items() if takes_all or name in parameters}
    asked = {*named.arguments, *(word[2:].split("=")[0].split(".")[0] for word in named.words)}
    for name in [name for name, value in given.items() if not _is_plain(value)]:
        if name not in asked:
            raise WrongCallError(
                f"the checkpoint's hyper-parameter {name!r} is no plain value: give it as --model.{name} VALUE"
            )
        del given[name]
    return given


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" not in value and all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _load(model: nn.Module, weights: dict[str, Any], prefix: str, path: str) -> None:
    if prefix:
        cut = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if not cut:
            raise WrongCallError(f"no name in {path!r} begins with --prefix {prefix}; they are {_some(weights)}")
        weights = cut
    own = model.state_dict()
    missing, extra = [n for n in own if n not in weights], [n for n in weights if n not in own]
    if missing or extra:
        raise WrongCallError(
            f"the weights in {os.path.basename(path)!r} do not fit {type(model).__name__}: "
            + "; ".join(
                f"{words} {_some(names)}" for words, names in (("it lacks", missing), ("it has", extra)) if names
            )
            + _remedy(list(own), list(weights))
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise WrongCallError(
            f"the weights in {os.path.basename(path)!r} do not fit: {describe_error(error)[:400]}"
        ) from error


def _remedy(own: list[str], theirs: list[str]) -> str:
    """What to do where names differ by what they begin with."""
    ends = [(a, b) for a in own for b in theirs if a != b and (a.endswith(f".{b}") or b.endswith(f".{a}"))]
    if not ends:
        return ". Is it the checkpoint of another model, or do arguments differ (--model.NAME VALUE)?"
    mine, their = max(ends, key=lambda pair: min(map(len, pair)))
    if len(their) > len(mine):
        return f". Its names begin with {their.removesuffix(mine)!r}: --prefix {their.removesuffix(mine)}"
    return (
        f". The model's names begin with {mine.removesuffix(their)!r}, the checkpoint's do not: pass as --model what "
        "stands inside"
    )


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:3])) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
