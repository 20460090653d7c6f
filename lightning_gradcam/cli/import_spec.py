"""Classes and functions named on the command line, with the arguments to call them with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_gradcam.cli.errors import UsageError


@dataclass(frozen=True)
class ImportSpec:
    """Import path of a class or function, and the arguments to call it with.

    Args:
        path: ``package.module.Name``, or a folder of images.
        arguments: Arguments from a configuration file.
        words: Arguments from the command line, ``--name=value``.
    """

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[str] = ()


def split_nested_arguments(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the command's own words, and the arguments for model and data as ``--name=value``."""
    words: list[str] = []
    nested: dict[str, list[str]] = {"model": [], "data": []}
    remaining = iter(argv)
    for word in remaining:
        match = re.fullmatch(r"--(model|data)\.(?:init_args\.)?([^=]+)(=.*)?", word, re.DOTALL)
        if match is None:
            words.append(word)
            continue
        option, name, value = match[1], match[2], match[3] or f"={next(remaining, '')}"
        if name == "class_path":
            words += [f"--{option}", value[1:]]
        else:
            nested[option].append(f"--{name}{value}")
    return words, nested


def create_spec(option: str, value: Any, words: Sequence[str]) -> ImportSpec | None:
    """Return what an option imports and with which arguments; None if it was not passed.

    Raises:
        UsageError: The value is neither a path nor a mapping with `class_path`, or there are arguments without a path.
    """
    if value is None:
        if words:
            raise UsageError(f"{words[0].split('=')[0].replace('--', f'--{option}.')} requires --{option}.")
        return None
    if isinstance(value, str):
        return ImportSpec(value, {}, words)
    if set(value) - {"class_path", "init_args"} or not isinstance(value.get("class_path"), str):
        raise UsageError(
            f"Expected --{option} to be a path, or a mapping with class_path and init_args, but got {value!r}."
        )
    return ImportSpec(value["class_path"], value.get("init_args") or {}, words)
