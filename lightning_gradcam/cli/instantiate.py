"""Creates models and data from an import path and arguments on the command line."""

from __future__ import annotations

import inspect
import json
from argparse import ArgumentError
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentParser

from lightning_gradcam.cli.errors import UsageError, describe_error, to_one_line
from lightning_gradcam.cli.import_spec import ImportSpec


def import_factory(path: str, option: str) -> Callable[..., Any]:
    """Import the class or function at ``package.module.Name``.

    Args:
        path: The import path.
        option: Name of the option, for messages.

    Raises:
        UsageError: The path is invalid, or its module could not be imported.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module or not name:
        raise UsageError(f"Expected --{option} to be a path such as package.module.Name, but got {path!r}.")
    try:
        factory: Any = import_module(module)
        for attribute in name.split("."):
            factory = getattr(factory, attribute)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--{option} {path} could not be imported: {describe_error(error)} (searched the working directory, "
            "PYTHONPATH and installed packages)"
        ) from error
    if not callable(factory):
        raise UsageError(f"Expected --{option} {path} to be a class or function, but got {type(factory).__name__}.")
    return factory  # type: ignore[no-any-return]  # callable() narrows Any no further


def instantiate(spec: ImportSpec, option: str, defaults: Mapping[str, Any] | None = None) -> Any:
    """Call a class or function with the arguments of the command line.

    Args:
        spec: Import path and arguments.
        option: ``"model"`` or ``"data"``, for messages.
        defaults: Values of arguments that the user did not pass. They are never interpreted as import paths.

    Raises:
        UsageError: The arguments do not match the signature or the types.
    """
    factory = import_factory(spec.path, option)
    arguments = {**(defaults or {}), **_parse_arguments(factory, spec, option)}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise UsageError(f"{spec.path}: {error}. Pass it as --{option}.NAME VALUE.") from error
    except ValueError:
        pass  # implemented in C, without a signature
    return factory(**arguments)


def _parse_arguments(factory: Callable[..., Any], spec: ImportSpec, option: str) -> dict[str, Any]:
    """Return the arguments of the user, converted to the types of the signature."""
    words = [f"--{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in spec.arguments.items()]
    words += spec.words
    if not words:
        return {}
    names = {word[2:].split("=")[0].split(".")[0] for word in words}
    try:
        parameters = _create_parser(factory, set())[1]
        # Arguments that are not passed keep their defaults, so the parser must not require them.
        parser, _ = _create_parser(factory, {name for name in parameters if name not in names})
        parsed = parser.parse_args(words)
        # Older releases of jsonargparse have only `instantiate_classes`.
        values = parser.instantiate(parsed) if hasattr(parser, "instantiate") else parser.instantiate_classes(parsed)
    except (ArgumentError, ValueError, TypeError) as error:
        raise UsageError(f"--{option} {spec.path}: {to_one_line(error)}") from error
    return {name: values[name] for name in names}


def _create_parser(factory: Callable[..., Any], skip: set[str]) -> tuple[ArgumentParser, list[str]]:
    """Return a parser for the parameters of a factory, except for those in ``skip``, and their names."""
    parser = ArgumentParser(exit_on_error=False)
    add_arguments = parser.add_class_arguments if isinstance(factory, type) else parser.add_function_arguments
    return parser, list(add_arguments(factory, fail_untyped=False, skip=set(skip)))
