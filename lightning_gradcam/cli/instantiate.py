"""From the path of a class or function, and arguments in words, to what it makes."""

from __future__ import annotations

import inspect
import json
from argparse import ArgumentError
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentParser

from lightning_gradcam.cli.errors import WrongCallError, describe_error, to_one_line
from lightning_gradcam.cli.parser import ImportSpec


def import_factory(path: str, what: str) -> Callable[..., Any]:
    """The class or function at ``package.module.Name``.

    Raises:
        WrongCallError: There is none, or its module could not be imported.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module or not name:
        raise WrongCallError(f"expected --{what} to be a path such as package.module.Name, but got {path!r}")
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise WrongCallError(
            f"--{what} {path} could not be imported: {describe_error(error)} "
            "(searched where you stand, and in PYTHONPATH)"
        ) from error
    if not callable(found):
        raise WrongCallError(f"expected --{what} {path} to be a class or function, but it is {type(found).__name__}")
    maker: Callable[..., Any] = found
    return maker


def instantiate(named: ImportSpec, what: str, defaults: Mapping[str, Any] | None = None) -> Any:
    """What a class or function makes of its arguments.

    Args:
        named: Its path and what the user gave.
        what: ``"model"`` or ``"data"``, for messages.
        defaults: Values for what the user did not give. They are passed on as they are, never read as paths.

    Raises:
        WrongCallError: Arguments do not fit, or it failed.
    """
    maker = import_factory(named.path, what)
    given = _read(maker, named, what)
    arguments = {**(defaults or {}), **given}
    try:
        inspect.signature(maker).bind(**arguments)
    except TypeError as error:
        raise WrongCallError(f"{named.path}: {error}; give it as --{what}.NAME VALUE") from error
    except ValueError:
        pass  # made in C, and says nothing of its arguments
    return maker(**arguments)


def _read(maker: Callable[..., Any], named: ImportSpec, what: str) -> dict[str, Any]:
    """What the user gave, as the types of the arguments say."""
    words = [f"--{n}={v if isinstance(v, str) else json.dumps(v)}" for n, v in named.arguments.items()]
    words += named.words
    if not words:
        return {}
    names = {word[2:].split("=")[0].split(".")[0] for word in words}
    try:
        known = _parser(maker, set())[1]
        # What is not given keeps its own default, so it is not asked for either.
        parser, _ = _parser(maker, {name for name in known if name not in names})
        read = parser.parse_args(words)
        # instantiate_classes is what older releases call it.
        found = parser.instantiate(read) if hasattr(parser, "instantiate") else parser.instantiate_classes(read)
    except (ArgumentError, ValueError, TypeError) as error:
        raise WrongCallError(f"--{what} {named.path}: {to_one_line(error)}") from error
    return {name: found[name] for name in names}


def _parser(maker: Callable[..., Any], skip: set[str]) -> tuple[ArgumentParser, list[str]]:
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if isinstance(maker, type) else parser.add_function_arguments
    return parser, list(add(maker, fail_untyped=False, skip=set(skip)))
