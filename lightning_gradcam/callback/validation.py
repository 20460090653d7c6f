"""Validators of arguments, with one wording of their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Validator: TypeAlias = Callable[[Any], object]
"""Raises a TypeError or ValueError for a wrong value; what it returns is ignored."""


def check_type(name: str, value: object, types: tuple[type, ...], or_callable: bool = False) -> None:
    """Raise a TypeError if an argument has none of these types; a bool does not count as an int.

    >>> check_type("chunk", 4, (int, type(None)))
    >>> check_type("chunk", True, (int, type(None)))
    Traceback (most recent call last):
    TypeError: Expected `chunk` to be int or None, but got bool: True.
    """
    if (isinstance(value, types) and not isinstance(value, bool)) or (or_callable and callable(value)):
        return
    expected = [kind.__name__.replace("NoneType", "None") for kind in types] + ["a callable"] * or_callable
    raise TypeError(f"Expected `{name}` to be {' or '.join(expected)}, but got {type(value).__name__}: {value!r}.")


def require_type(name: str, *types: type, or_callable: bool = False) -> Validator:
    """Return a validator that calls `check_type`."""
    return lambda value: check_type(name, value, types, or_callable)


def require_choice(name: str, *choices: str) -> Validator:
    """Return a validator that raises a ValueError for a value that is not among the choices.

    >>> require_choice("on_error", "warn", "raise")("ignore")
    Traceback (most recent call last):
    ValueError: Expected `on_error` to be 'warn' or 'raise', but got 'ignore'.
    """

    def validate(value: object) -> None:
        if value not in choices:
            raise ValueError(f"Expected `{name}` to be {' or '.join(map(repr, choices))}, but got {value!r}.")

    return validate


def require(predicate: Callable[[Any], bool], message: str) -> Validator:
    """Return a validator that raises a ValueError with ``message``, and the value, if the predicate is False.

    >>> require(lambda size: size > 0, "Expected `chunk` of at least 1")(0)
    Traceback (most recent call last):
    ValueError: Expected `chunk` of at least 1, but got 0.
    """

    def validate(value: object) -> None:
        if not predicate(value):
            raise ValueError(f"{message}, but got {value!r}.")

    return validate
