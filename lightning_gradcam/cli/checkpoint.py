"""Checkpoints, read without executing code, and their weights, loaded into a model."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_gradcam.cli.errors import UsageError, describe_error

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")


def read_checkpoint(path: str) -> Mapping[str, Any]:
    """Read a checkpoint of tensors and plain values.

    Raises:
        UsageError: The file is not a checkpoint, or contains other objects.
    """
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles, which are rejected below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"--ckpt_path {path!r} cannot be read: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"--ckpt_path {path!r} is damaged or contains objects other than tensors and plain values (for example in "
            "its hyperparameters). Such a file can execute code, so it is not loaded. Save only the weights: "
            "torch.save(model.state_dict(), path)"
        ) from error
    except (RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise UsageError(f"--ckpt_path {path!r} is not a checkpoint: {describe_error(error)}") from error
    if not isinstance(checkpoint, Mapping):
        raise UsageError(f"Expected --ckpt_path {path!r} to contain a state dict, but got {type(checkpoint).__name__}.")
    return checkpoint


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], prefix: str, path: str) -> None:
    """Load the weights of a checkpoint into a model.

    Args:
        model: Changed in place.
        checkpoint: A state dict, or a mapping that contains one.
        prefix: Prefix to strip from its keys; keys without it are dropped.
        path: The file, for messages.

    Raises:
        UsageError: The checkpoint contains no weights, or they do not match the model.
    """
    weights = _find_state_dict(checkpoint, path)
    unnamed = [key for key in weights if not isinstance(key, str)]
    if unnamed:
        raise UsageError(
            f"Expected the names of tensors in {path!r} to be text, but got {unnamed[0]!r}, a "
            f"{type(unnamed[0]).__name__}."
        )
    if prefix:
        stripped = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if not stripped:
            raise UsageError(
                f"Expected keys in {path!r} that begin with --prefix {prefix}, but got {_list_examples(weights)}."
            )
        weights = stripped
    _check_keys(model, weights, path)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(
            f"The weights in {os.path.basename(path)!r} do not match the model: {describe_error(error)[:400]}"
        ) from error


def _find_state_dict(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
    for key in _STATE_DICT_KEYS:
        if isinstance(checkpoint.get(key), Mapping):
            return dict(checkpoint[key])
    if checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()):
        return dict(checkpoint)
    keys = ", ".join(map(str, list(checkpoint)[:8])) or "none"
    raise UsageError(f"Expected --ckpt_path {path!r} to contain a state dict, but got the keys {keys}.")


def _check_keys(model: nn.Module, weights: Mapping[str, Any], path: str) -> None:
    """Raise a UsageError if the keys of a state dict differ from the model's."""
    keys = model.state_dict().keys()
    missing, unexpected = [key for key in keys if key not in weights], [key for key in weights if key not in keys]
    if not missing and not unexpected:
        return
    problems = [("missing", missing), ("unexpected", unexpected)]
    raise UsageError(
        f"The weights in {os.path.basename(path)!r} do not match {type(model).__name__}: "
        + "; ".join(f"{problem} {_list_examples(names)}" for problem, names in problems if names)
        + f". {_suggest_remedy(list(keys), list(weights))}"
    )


def _suggest_remedy(model_keys: list[str], checkpoint_keys: list[str]) -> str:
    """Suggest what to do, depending on whether the keys differ only by a prefix."""
    pairs = [
        (model_key, key)
        for model_key in model_keys
        for key in checkpoint_keys
        if model_key != key and (model_key.endswith(f".{key}") or key.endswith(f".{model_key}"))
    ]
    if not pairs:
        return "Check that the checkpoint belongs to this model, and its arguments (--model.NAME VALUE)."
    model_key, key = max(pairs, key=lambda pair: min(map(len, pair)))
    if len(key) > len(model_key):
        prefix = key.removesuffix(model_key)
        return f"The checkpoint's keys begin with {prefix!r}. Pass --prefix {prefix}"
    prefix = model_key.removesuffix(key)
    return (
        f"The model's keys begin with {prefix!r}, but the checkpoint's do not. Pass the submodule {prefix[:-1]!r} as "
        "--model."
    )


def _list_examples(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
